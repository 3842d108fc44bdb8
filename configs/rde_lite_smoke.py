"""The recipe `rde_lite_smoke`, by the name of a file; it is rdejax/configs/rde_lite_smoke.py."""

from rdejax.configs.rde_lite_smoke import config as config

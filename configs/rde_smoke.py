"""The recipe `rde_smoke`, by the name of a file; it is rdejax/configs/rde_smoke.py."""

from rdejax.configs.rde_smoke import config as config

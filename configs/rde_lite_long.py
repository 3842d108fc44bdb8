"""The recipe `rde_lite_long`, by the name of a file; it is rdejax/configs/rde_lite_long.py."""

from rdejax.configs.rde_lite_long import config as config

"""The recipe `rde_lite`, by the name of a file; it is rdejax/configs/rde_lite.py."""

from rdejax.configs.rde_lite import config as config

"""The recipe `rde_stage3`, by the name of a file; it is rdejax/configs/rde_stage3.py."""

from rdejax.configs.rde_stage3 import config as config

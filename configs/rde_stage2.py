"""The recipe `rde_stage2`, by the name of a file; it is rdejax/configs/rde_stage2.py."""

from rdejax.configs.rde_stage2 import config as config

"""The recipe `rde_stage1`, by the name of a file; it is rdejax/configs/rde_stage1.py."""

from rdejax.configs.rde_stage1 import config as config

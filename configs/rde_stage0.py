"""The recipe `rde_stage0`, by the name of a file; it is rdejax/configs/rde_stage0.py."""

from rdejax.configs.rde_stage0 import config as config

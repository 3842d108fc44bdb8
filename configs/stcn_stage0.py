"""The recipe `stcn_stage0`, by the name of a file; it is rdejax/configs/stcn_stage0.py."""

from rdejax.configs.stcn_stage0 import config as config

"""The recipe `stcn_stage2`, by the name of a file; it is rdejax/configs/stcn_stage2.py."""

from rdejax.configs.stcn_stage2 import config as config

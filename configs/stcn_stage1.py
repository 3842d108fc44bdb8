"""The recipe `stcn_stage1`, by the name of a file; it is rdejax/configs/stcn_stage1.py."""

from rdejax.configs.stcn_stage1 import config as config

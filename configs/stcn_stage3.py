"""The recipe `stcn_stage3`, by the name of a file; it is rdejax/configs/stcn_stage3.py."""

from rdejax.configs.stcn_stage3 import config as config

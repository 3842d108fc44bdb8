"""The recipe `xmem_stage1`, by the name of a file; it is rdejax/configs/xmem_stage1.py."""

from rdejax.configs.xmem_stage1 import config as config

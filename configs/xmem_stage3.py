"""The recipe `xmem_stage3`, by the name of a file; it is rdejax/configs/xmem_stage3.py."""

from rdejax.configs.xmem_stage3 import config as config

"""The recipe `xmem_stage2`, by the name of a file; it is rdejax/configs/xmem_stage2.py."""

from rdejax.configs.xmem_stage2 import config as config

"""The recipe `xmem_stage0`, by the name of a file; it is rdejax/configs/xmem_stage0.py."""

from rdejax.configs.xmem_stage0 import config as config

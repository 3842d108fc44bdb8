"""The recipe `xmem_lite`, by the name of a file; it is rdejax/configs/xmem_lite.py."""

from rdejax.configs.xmem_lite import config as config

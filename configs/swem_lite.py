"""The recipe `swem_lite`, by the name of a file; it is rdejax/configs/swem_lite.py."""

from rdejax.configs.swem_lite import config as config

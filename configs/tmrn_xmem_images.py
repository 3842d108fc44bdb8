"""The recipe `tmrn_xmem_images`, by the name of a file; see rdejax/configs/tmrn_xmem_images.py."""

from rdejax.configs.tmrn_xmem_images import config as config

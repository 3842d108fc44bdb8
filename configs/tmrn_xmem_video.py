"""The recipe `tmrn_xmem_video`, by the name of a file; see rdejax/configs/tmrn_xmem_video.py."""

from rdejax.configs.tmrn_xmem_video import config as config

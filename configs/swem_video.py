"""The recipe `swem_video`, by the name of a file; it is rdejax/configs/swem_video.py."""

from rdejax.configs.swem_video import config as config

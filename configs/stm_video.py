"""The recipe `stm_video`, by the name of a file; it is rdejax/configs/stm_video.py."""

from rdejax.configs.stm_video import config as config

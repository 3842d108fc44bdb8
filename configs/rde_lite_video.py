"""The recipe `rde_lite_video`, by the name of a file; it is rdejax/configs/rde_lite_video.py."""

from rdejax.configs.rde_lite_video import config as config

"""The recipe `tmrn_stcn_video`, by the name of a file; see rdejax/configs/tmrn_stcn_video.py."""

from rdejax.configs.tmrn_stcn_video import config as config

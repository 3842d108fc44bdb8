"""The recipe `tmrn_stm_video`, by the name of a file; see rdejax/configs/tmrn_stm_video.py."""

from rdejax.configs.tmrn_stm_video import config as config

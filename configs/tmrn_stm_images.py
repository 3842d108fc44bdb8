"""The recipe `tmrn_stm_images`, by the name of a file; see rdejax/configs/tmrn_stm_images.py."""

from rdejax.configs.tmrn_stm_images import config as config

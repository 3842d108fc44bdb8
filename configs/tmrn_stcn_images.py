"""The recipe `tmrn_stcn_images`, by the name of a file; see rdejax/configs/tmrn_stcn_images.py."""

from rdejax.configs.tmrn_stcn_images import config as config

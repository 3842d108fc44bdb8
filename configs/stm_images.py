"""The recipe `stm_images`, by the name of a file; it is rdejax/configs/stm_images.py."""

from rdejax.configs.stm_images import config as config

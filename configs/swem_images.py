"""The recipe `swem_images`, by the name of a file; it is rdejax/configs/swem_images.py."""

from rdejax.configs.swem_images import config as config

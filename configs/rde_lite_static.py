"""The recipe `rde_lite_static`, by the name of a file; it is rdejax/configs/rde_lite_static.py."""

from rdejax.configs.rde_lite_static import config as config

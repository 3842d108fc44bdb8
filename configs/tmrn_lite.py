"""The recipe `tmrn_lite`, by the name of a file; see rdejax/configs/tmrn_lite.py."""

from rdejax.configs.tmrn_lite import config as config

"""The recipe `tmrn_smoke`, by the name of a file; see rdejax/configs/tmrn_smoke.py."""

from rdejax.configs.tmrn_smoke import config as config

"""The recipe `dmn_aoa_joint`; it is rdejax/configs/dmn_aoa_joint.py."""

from rdejax.configs.dmn_aoa_joint import config as config

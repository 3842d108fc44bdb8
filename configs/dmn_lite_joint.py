"""The recipe `dmn_lite_joint`; it is rdejax/configs/dmn_lite_joint.py."""

from rdejax.configs.dmn_lite_joint import config as config

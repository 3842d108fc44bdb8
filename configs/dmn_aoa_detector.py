"""The recipe `dmn_aoa_detector`; it is rdejax/configs/dmn_aoa_detector.py."""

from rdejax.configs.dmn_aoa_detector import config as config

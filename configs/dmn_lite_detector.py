"""The recipe `dmn_lite_detector`; it is rdejax/configs/dmn_lite_detector.py."""

from rdejax.configs.dmn_lite_detector import config as config

"""Public PyTorch checkpoints to weights of this library, without PyTorch."""

from rdejax.convert.build import convert_file, convert_state_dict
from rdejax.convert.imagenet import load_imagenet_trunk
from rdejax.convert.torch_pickle import load_state_dict

__all__ = ["convert_file", "convert_state_dict", "load_imagenet_trunk", "load_state_dict"]

"""What a model takes for each frame beside its picture, from .npz files."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from rdejax.errors import RdejaxError
from rdejax.models import System


def read_beside(path: Path | None, model: System, frames: int) -> dict[str, np.ndarray]:
    """Arrays [frames, ...] by the names in `System.frame_inputs`.

    Args:
      path: of the .npz file, which is read without running anything in it; None: nothing is given.
      model: the system.
      frames: of the video.

    Raises:
      RdejaxError: unreadable; an array that the system does not take (`System.checked_beside`), or
        one with another number of entries than frames.
    """
    if path is None:
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise RdejaxError(f"{path}: no such file; give an .npz file") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise RdejaxError(
            f"{path}: not a readable .npz file ({error}); write it with numpy.savez"
        ) from None
    for name, array in arrays.items():
        if name not in model.frame_inputs:
            known = ", ".join(model.frame_inputs) or "nothing"
            raise RdejaxError(
                f"{path}: holds {name!r}, but {model.name!r} takes {known} beside frames"
            )
        if array.shape[:1] != (frames,):
            raise RdejaxError(
                f"{path}: {name} has shape {list(array.shape)} for {frames} frames; its first axis "
                "must be the frames"
            )
    try:
        return model.checked_beside(arrays)
    except RdejaxError as error:
        raise RdejaxError(f"{path}: {error}") from None


def digest_beside(arrays: dict[str, np.ndarray]) -> str:
    """A digest, by which a continued run knows that it has the same arrays."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()[:16]

"""Masks of one video, in which a colour is the same object in all of them.

Most hold ids and are read one by one. A colour's id, though, depends on what other colours there
are: those that `rdejax infer` gives where it is given the same masks.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from rdejax.errors import BadFile, RdejaxError
from rdejax.io.mask_reader import MaskReader
from rdejax.io.masks import IdMask, MaskRules, read_mask


class SequenceMasks:
    """Reads the masks of a video in any order.

    Args:
      paths: gives all of them, in the order of their frames; asked where one is in colours.
      rules: for those that hold ids.
    """

    def __init__(self, paths: Callable[[], Iterable[Path]], rules: MaskRules):
        self._paths, self._rules = paths, dataclasses.replace(rules, colours="refuse")
        self._reader: MaskReader | None = None

    def read(self, path: Path) -> IdMask:
        """One of the masks; the first in colours has all looked through.

        Raises:
          BadFile: see `read_mask`; or colours that cannot be ids.
        """
        try:
            return read_mask(path, self._rules)
        except BadFile as error:
            if error.problem != "mask in colours":
                raise
            try:
                self._reader = self._reader or self._met_all()
                return self._reader.read(path)
            except RdejaxError as other:
                raise BadFile(str(other), error.problem) from None

    def _met_all(self) -> MaskReader:
        """A reader that knows the colours of all masks, and so changes no more."""
        reader = MaskReader(255)
        for path in self._paths():
            with contextlib.suppress(RdejaxError):  # said when that one is read
                reader.read(path)
        return reader

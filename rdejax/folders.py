"""Folders that results go to: who may write, what stays untouched, what kills leave behind."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from rdejax.errors import RdejaxError
from rdejax.files import temporary_name

# What the programs put beside the folders of sequences, with all that ends in .json; and what a
# result of one video has in their place.
_OWN = ("unfinished", "report.html", "masks", "overlay.mp4", "timing.csv")
_LEFT_BY_A_KILL = re.compile(r"\.(?P<stem>.+)\.tmp-\d+(?P<suffix>\.\w+)?")


class Locked(RdejaxError):
    """Another run is writing to a folder."""


def check_name(name: str, where: str | Path) -> str:
    """A name that is to become a file or folder of that name inside another one.

    Args:
      name: as some list or file gives it.
      where: what gives it, for the message.

    Returns:
      The name.

    Raises:
      RdejaxError: it would lead elsewhere, hide, or take the place of a program's own file.
    """
    # Some file systems do not tell capitals from small letters.
    own = name.lower() in _OWN or name.lower().endswith(".json")
    if own or not name or name.startswith(".") or not {"/", "\0"}.isdisjoint(name):
        why = (
            "is what the programs call a file of their own"
            if own
            else "leads out of its folder or is hidden"
        )
        raise RdejaxError(
            f"{where}: {name!r} cannot be the name of a sequence, for it {why}; rename it"
        )
    return name


def lying_in(inputs: Iterable[Path], written: Iterable[Path]) -> Path | None:
    """The first input that is, or lies in, something that will be written or removed; or None.

    Links are followed on both sides.
    """
    targets = {Path(os.path.realpath(path)) for path in written}
    for given in inputs:
        place = Path(os.path.realpath(given))
        if not targets.isdisjoint((place, *place.parents)):
            return given
    return None


def keep_inputs(inputs: Iterable[Path], written: Path, option: str = "--output") -> None:
    """Refuses to write a file, or a folder, over what is read.

    Args:
      inputs: files and folders that are read.
      written: what will be written or replaced.
      option: what names it on the command line, for the message.

    Raises:
      RdejaxError: one of the inputs is it, or lies in it.
    """
    if given := lying_in(inputs, [written]):
        raise RdejaxError(
            f"{written}: would replace {given}, which is read; choose another {option}"
        )


@contextlib.contextmanager
def locked(
    folder: Path, option: str = "--output", *, shared: bool = False, wait: bool = False
) -> Iterator[None]:
    """Keeps a folder, which is made if missing, for this run alone while the block runs.

    The system gives the lock back when a process ends, however it ends. It lies on the folder
    itself and so leaves no file. File systems that know no such locks are used without.

    Args:
      folder: to be written to.
      option: what names the folder on the command line, for the messages.
      shared: with others that share it, which see to it that they do not meet.
      wait: for the end of a run that writes there, instead of raising.

    Raises:
      RdejaxError: another run is writing there, or it is a file.
      OSError: it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise RdejaxError(f"{folder}: is a file; {option} must be a folder")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked(
                f"{folder}: another run is writing here; wait for its end or choose another "
                f"{option}"
            ) from None
        except OSError:  # a network file system without locks
            pass
        yield
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Removes a file or folder, if it is there; its name is gone at once, whatever kills us."""
    if path.is_dir() and not path.is_symlink():
        hidden = temporary_name(path)
        shutil.rmtree(hidden, ignore_errors=True)
        os.replace(path, hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, names: Container[str] | None = None) -> None:
    """Removes what killed runs left half written or half removed; call it under `locked`.

    What a run that goes on holds `locked` stays.

    Args:
      folder: where; it may be missing.
      names: only what stood for these; None: everything, in folders that are the program's own.
    """
    for item in folder.iterdir() if folder.is_dir() else ():
        match = _LEFT_BY_A_KILL.fullmatch(item.name)
        if match is None or not (names is None or match["stem"] + (match["suffix"] or "") in names):
            continue
        if item.is_dir() and not item.is_symlink():
            with contextlib.suppress(Locked), locked(item):
                shutil.rmtree(item)
        else:
            item.unlink(missing_ok=True)

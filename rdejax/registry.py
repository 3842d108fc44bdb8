"""Classes by name: from the modules of a package, or from a user's own Python file."""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from rdejax.errors import RdejaxError

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """Classes that register themselves under a name when their module is imported.

    Args:
      kind: what they are, for messages ("memory rule").
      package: dotted name of the package whose modules register some; imported at the first look.
      files: whether the name of a Python file that registers one does, too.
    """

    def __init__(self, kind: str, package: str, *, files: bool = False):
        self._kind, self._package, self._files = kind, package, files
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: makes a class known by `name`."""

        def decorate(cls: C) -> C:
            # What a user's file imports of this package is not the file's own.
            if _running and not self._is_own(cls):
                _running[-1].append(_Registered(self, name, cls, self._classes.get(name)))
            self._classes[name] = cls  # type: ignore[assignment]
            return cls

        return decorate

    def names(self) -> tuple[str, ...]:
        """Names of all classes, sorted."""
        self._import_package()
        return tuple(sorted(self._classes))

    def find(self, name: str) -> type[T]:
        """The class registered as `name`, or the one that the Python file `name` registers.

        A file is run once, and again only when its text has changed: two look-ups give the same
        class, so that what was compiled for it serves again.

        Raises:
          RdejaxError: no such class or file (names the known ones), or a file that cannot be run or
            does not register exactly one.
        """
        if self._files and name.endswith(".py"):
            return self._find_in_file(Path(name))
        known = self.names()
        if name not in known:
            hint = ", or give a .py file" if self._files else ""
            raise RdejaxError(
                f"{self._kind} {name!r} is unknown; choose one of {', '.join(known)}{hint}"
            )
        return self._classes[name]

    def _import_package(self) -> None:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")

    def _find_in_file(self, path: Path) -> type[T]:
        if not path.is_file():
            raise RdejaxError(
                f"{path}: no such file; give a {self._kind}'s name or an existing .py file"
            )
        self._import_package()
        place, source = path.resolve(), path.read_bytes()
        text, found = _files.get(place, (None, []))
        if text != source:
            new = _run(path, place, source, self)
            # What it registered before is gone, in whatever registry and under whatever name.
            for one in found:
                one.registry._forget(one.cls)
            text, found = _files[place] = source, new
        return self._only_one(path, found)

    def _only_one(self, path: Path, registered: "list[_Registered]") -> type[T]:
        mine = {one.name: one.cls for one in registered if one.registry is self}
        if len(mine) != 1:
            raise RdejaxError(
                f"{path}: registers {len(mine)} {self._kind}s; "
                "decorate exactly one class with @register"
            )
        return next(iter(mine.values()))

    def _forget(self, cls: type) -> None:
        self._classes = {n: one for n, one in self._classes.items() if one is not cls}

    def _is_own(self, cls: type | None) -> bool:
        """Whether a class is of the package."""
        return cls is not None and cls.__module__.startswith(f"{self._package}.")


@dataclasses.dataclass(frozen=True)
class _Registered:
    """What a user's file registered where, and what had the name before."""

    registry: Registry
    name: str
    cls: type
    before: type | None

    def undo(self) -> None:
        """Gives the name back."""
        classes = self.registry._classes
        if self.before is None:
            classes.pop(self.name, None)
        else:
            classes[self.name] = self.before


# By resolved path: the text that was run, and what it registered. One for all registries, so that a
# file with a rule and an objective is run once.
_files: dict[Path, tuple[bytes, list[_Registered]]] = {}
# What the files that are running register, the innermost last.
_running: list[list[_Registered]] = []


def _run(path: Path, place: Path, source: bytes, wanted: Registry) -> list[_Registered]:
    """Runs a file; whatever goes wrong, all registries are as they were.

    Args:
      path: the file, as the user calls it.
      place: its resolved path.
      source: its text.
      wanted: the registry that asks; the file must register exactly one class there.
    """
    registered: list[_Registered] = []
    _running.append(registered)
    try:
        # The text that was compared, and not what a stale bytecode cache may hold.
        with _as_module(place) as module:
            with running(path, place):
                exec(compile(source, str(place), "exec"), module.__dict__)
            wanted._only_one(path, registered)
    except BaseException:
        for one in reversed(registered):
            one.undo()
        raise
    finally:
        _running.pop()
    for one in registered:
        if one.registry._is_own(one.before):
            one.undo()  # a name of this package means the same everywhere
    return registered


@contextlib.contextmanager
def running(path: str | Path, place: str | Path | None = None) -> Iterator[None]:
    """The block runs a user's program; what it raises becomes one sentence with file and line.

    Args:
      path: the file, as the user calls it.
      place: the name it was compiled under, if that is another one.

    Raises:
      RdejaxError: it cannot be compiled, raises, or ends the process.
    """
    try:
        yield
    except RdejaxError as error:
        raise RdejaxError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        syntax = isinstance(error, SyntaxError)
        line = error.lineno if syntax else raised_at(error, str(place or path)) or "?"
        raise RdejaxError(f"{path}, line {line}: {type(error).__name__}: {error}") from error


def raised_at(error: BaseException, place: str) -> int | None:
    """The line of a file, by the name it was compiled under, in which an exception arose."""
    found: int | None = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == place:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


@contextlib.contextmanager
def _as_module(place: Path) -> Iterator[ModuleType]:
    """An empty module of a name that no other file has; on an error the earlier one is back."""
    name = f"rdejax_user_{place.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    before, module = sys.modules.get(name), importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        yield module
    except BaseException:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise

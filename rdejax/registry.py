"""Classes by name: from the modules of a package, or from a user's own Python file."""

import contextlib
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
        # By resolved path: the text that was run, and the class that it registered.
        self._loaded: dict[Path, tuple[bytes, type[T]]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator: makes a class known by `name`."""

        def decorate(cls: C) -> C:
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
        place, source = path.resolve(), path.read_bytes()
        text, old = self._loaded.get(place, (None, None))
        if old is None or text != source:
            new = self._run(path, place, source)
            # What it registered before is gone, under whatever name.
            self._classes = {n: cls for n, cls in self._classes.items() if cls is not old}
            self._loaded[place] = source, new
            return new
        return old

    def _run(self, path: Path, place: Path, source: bytes) -> type[T]:
        """Runs a file; whatever goes wrong, the registry is as it was."""
        self._import_package()  # or what the file imports of it would count as the file's own
        before = dict(self._classes)
        try:
            with _as_module(place) as module:
                # The text that was compared, and not what a stale bytecode cache may hold.
                with running(path, place):
                    exec(compile(source, str(place), "exec"), module.__dict__)
                new = {n: cls for n, cls in self._classes.items() if before.get(n) is not cls}
                if len(new) != 1:
                    raise RdejaxError(
                        f"{path}: registers {len(new)} {self._kind}s; "
                        "decorate exactly one class with @register"
                    )
        except BaseException:
            self._classes = before
            raise
        ((name, cls),) = new.items()
        if name in before and before[name].__module__.startswith(f"{self._package}."):
            self._classes[name] = before[name]  # a name of this package means the same everywhere
        return cls


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

"""The values in a pickle, without anything being run, in memory and time bounded by its length.

A pickle is a program for a stack machine. Python's own machine calls what the program names, makes
room for whatever memo index it is told, and hashes any nest as a dictionary's key. This one knows
plain values and what `build` makes of the names that it is asked for; every other object is
`UNKNOWN`. Python's `pickletools` splits the program into its operations.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

# Of a checkpoint with optimiser some hundred thousand; each costs about a microsecond.
_MOST_STEPS = 4_000_000
_MOST_BYTES = 64 << 20
_KEYS = (str, int, float, bool, bytes, type(None))


class Unknown:
    """Stands for any object that is not known here."""

    __slots__ = ()


UNKNOWN = Unknown()


class Name:
    """A function or class that a pickle names; it is neither imported nor called."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Refused(Exception):
    """A pickle that is damaged, asks for too much, or does what none of a checkpoint does."""


Build = Callable[[Name, tuple], Any]


def read_pickle(
    data: bytes, *, build: Build, persistent: Callable[[Any], Any], start: int = 0
) -> tuple[Any, int]:
    """The value of a pickle.

    Args:
      data: the pickle, and whatever comes behind it.
      build: what a call of a name with arguments gives; `UNKNOWN` for what it does not know.
      persistent: what a persistent id gives.
      start: where in `data` the pickle begins.

    Returns:
      Plain values (dictionaries with keys of `_KEYS`, or with an `Unknown` in place of others),
      `Name`s, `UNKNOWN`, and what `build` and `persistent` made; and where the pickle ends.

    Raises:
      EOFError: it ends too early.
      Refused: see there.
    """
    machine = _Machine(build, persistent)
    file = io.BytesIO(data[start : start + _MOST_BYTES])
    try:
        for operation, argument, _ in pickletools.genops(file):
            machine.step(operation.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError) as error:
        if file.tell() >= len(data) - start:
            raise EOFError from None
        raise Refused(f"an unreadable pickle ({type(error).__name__})") from None
    return machine.stack.pop(), start + file.tell()


class _Machine:
    """The stack, its marks and the memo; one operation at a time."""

    def __init__(self, build: Build, persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._build, self._persistent = build, persistent
        self._left = _MOST_STEPS

    def step(self, operation: str, argument: Any) -> None:
        """Does one operation.

        Raises:
          Refused: an operation that is not known, a call of more than a name, or too many of them.
          IndexError: something is taken from an empty stack.
          KeyError: something is taken from the memo that is not there.
        """
        self._spend(1)
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation])
        elif operation in _TUPLES:
            self._tuple(_TUPLES[operation])
        else:
            method = _METHODS.get(operation)
            if method is None:
                raise Refused(f"a pickle with {operation}, which no checkpoint has")
            method(self, argument)

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise Refused(f"a pickle of more than {_MOST_STEPS} operations")

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def _mark(self, _: Any) -> None:
        self._marks.append(self.stack)
        self.stack = []

    def _to_mark(self, _: Any = None) -> list[Any]:
        items, self.stack = self.stack, self._marks.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _put(self, index: Any) -> None:
        self._memo[int(index)] = self.stack[-1]

    def _collect(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self._to_mark()
        self.stack.append(kind(items))

    def _append(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            _fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name):
            return UNKNOWN  # of what another call gave
        if not isinstance(arguments, tuple):
            raise Refused("a pickle that calls without arguments")
        # What copies its arguments costs more than one step.
        self._spend(sum(len(a) for a in arguments if isinstance(a, list | tuple | dict)))
        name = (function.module, function.name)
        if name in _CONTAINERS:
            return _container(_CONTAINERS[name], arguments)
        return self._build(function, arguments)

    def _reduce(self, _: Any) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _object(self, _: Any) -> None:
        function, *arguments = self._to_mark()
        self.stack.append(self._call(function, tuple(arguments)))

    def _instance(self, name: str) -> None:
        arguments = self._to_mark()
        self.stack.append(self._call(_name(name), tuple(arguments)))

    def _global(self, name: str) -> None:
        self.stack.append(_name(name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise Refused("a pickle that names something by no text")
        self.stack.append(Name(module, name))

    def _state(self, _: Any) -> None:
        # Tensors and dictionaries stay as they were built; state is metadata of PyTorch's.
        self.stack.pop()
        if not self.stack:
            raise IndexError

    def _persistent_id(self, argument: Any) -> None:
        self.stack.append(self._persistent(self.stack.pop() if argument is None else argument))


def _name(text: str) -> Name:
    module, _, name = text.partition(" ")
    return Name(module, name)


def _fill(into: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        into[key if type(key) in _KEYS else Unknown()] = value


def _container(kind: str, arguments: tuple) -> Any:
    """A dictionary or list that is built by a call; sets hold nothing that is of use."""
    if kind == "set":
        return UNKNOWN
    given = arguments[0] if arguments else ()
    if kind == "list":
        return list(given) if isinstance(given, list | tuple) else UNKNOWN
    out: dict[Any, Any] = {}
    if isinstance(given, dict):
        out.update(given)
    elif isinstance(given, list | tuple):
        pairs = [pair for pair in given if isinstance(pair, list | tuple) and len(pair) == 2]
        if len(pairs) != len(given):
            return UNKNOWN
        _fill(out, pairs)
    return out


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {
    ("collections", "OrderedDict"): "dict",
    ("builtins", "dict"): "dict",
    ("builtins", "list"): "list",
    ("builtins", "set"): "set",
    ("__builtin__", "set"): "set",
}


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    del machine.stack[-3:]
    machine.stack.append(UNKNOWN)


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    _fill(out, zip(items[::2], items[1::2], strict=True))
    return out


def _set_item(machine: _Machine, _: Any) -> None:
    machine._tuple(2)
    machine._set_items(list(machine.stack.pop()))


_METHODS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "STOP": lambda machine, _: machine.stack[-1],
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._to_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": lambda machine, _: machine._put(len(machine._memo)),
    "GET": lambda machine, i: machine.stack.append(machine._memo[int(i)]),
    "BINGET": lambda machine, i: machine.stack.append(machine._memo[i]),
    "LONG_BINGET": lambda machine, i: machine.stack.append(machine._memo[i]),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(UNKNOWN),
    "TUPLE": lambda machine, _: machine._collect(tuple),
    "LIST": lambda machine, _: machine._collect(list),
    "DICT": lambda machine, _: machine._collect(_dictionary),
    "FROZENSET": lambda machine, _: machine._collect(lambda items: UNKNOWN),
    "APPEND": lambda machine, _: machine._append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine._set_items(machine._to_mark()),
    "ADDITEMS": _Machine._to_mark,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "OBJ": _Machine._object,
    "INST": _Machine._instance,
    "BUILD": _Machine._state,
    "PERSID": _Machine._persistent_id,
    "BINPERSID": _Machine._persistent_id,
}

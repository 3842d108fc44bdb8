"""Memory rules by name, from this package or from a user's own file."""

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import MemoryRule

_RULES: dict[str, type[MemoryRule]] = {}
_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None (all)",
}


def register(name: str) -> Callable[[type[MemoryRule]], type[MemoryRule]]:
    """Class decorator: makes a `MemoryRule` known by `name` to configurations and command lines."""

    def decorate(rule: type[MemoryRule]) -> type[MemoryRule]:
        _RULES[name] = rule
        return rule

    return decorate


def _import_all() -> None:
    import rdejax.memory as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def _load_file(path: Path) -> type[MemoryRule]:
    if not path.is_file():
        raise RdejaxError(
            f"{path}: no such file; give a memory rule's name or an existing .py file"
        )
    known = dict(_RULES)
    spec = importlib.util.spec_from_file_location(f"rdejax_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    new = [rule for name, rule in _RULES.items() if known.get(name) is not rule]
    if len(new) != 1:
        raise RdejaxError(
            f"{path}: registers {len(new)} memory rules; decorate exactly one class with @register"
        )
    return new[0]


def find_rule(name: str) -> type[MemoryRule]:
    """The rule registered as `name`, or the one that the Python file `name` registers.

    Raises:
      RdejaxError: no such rule or file; names the known ones.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    _import_all()
    if name not in _RULES:
        known = ", ".join(sorted(_RULES))
        raise RdejaxError(
            f"memory rule {name!r} is unknown; choose one of {known}, or give a .py file"
        )
    return _RULES[name]


def rule_settings(name: str) -> dict[str, Any]:
    """Settings of a rule and their defaults: the keywords of its constructor."""
    skip = {"self", "key_channels", "value_channels", "rngs"}
    parameters = inspect.signature(find_rule(name).__init__).parameters
    return {
        key: p.default
        for key, p in parameters.items()
        if key not in skip and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def check_setting(rule: str, name: str, value: Any) -> None:
    """Refuses a setting of another type than a rule's constructor declares.

    Only types a command line can spell are looked at; a rule checks ranges itself.

    Raises:
      RdejaxError: such a setting; says which types are taken.
    """
    hints = get_type_hints(find_rule(rule).__init__)
    wanted = hints.get(name, Any)
    allowed = get_args(wanted) or (wanted,)
    if type(value) not in _KINDS or not set(allowed) <= set(_KINDS) or type(value) in allowed:
        return
    if type(value) is int and float in allowed:
        return
    kinds = " or ".join(_KINDS[kind] for kind in allowed)
    raise RdejaxError(f"{name}={value}: memory {rule!r} takes {kinds}")


def make_rule(
    name: str, *, key_channels: int, value_channels: int, rngs: nnx.Rngs, **settings: Any
) -> MemoryRule:
    """Builds the rule `name`.

    Raises:
      RdejaxError: unknown rule, or a setting it does not have.
    """
    known = rule_settings(name)
    for key in settings:
        if key not in known:
            raise RdejaxError(
                f"memory rule {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}"
            )
    rule = find_rule(name)
    return rule(key_channels=key_channels, value_channels=value_channels, rngs=rngs, **settings)

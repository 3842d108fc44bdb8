"""Memory rules by name, from this package or from a user's own file."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import MemoryRule
from rdejax.nn.constants import with_constants
from rdejax.registry import C, Registry

_RULES = Registry[MemoryRule]("memory rule", "rdejax.memory", files=True)
_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "None (all)",
}


def register(name: str) -> Callable[[C], C]:
    """Class decorator: makes a `MemoryRule` known by `name` to configurations and command lines."""
    return _RULES.register(name)


def names() -> tuple[str, ...]:
    """Names of all rules of this package."""
    return _RULES.names()


def find_rule(name: str) -> type[MemoryRule]:
    """The rule registered as `name`, or the one that the Python file `name` registers.

    Raises:
      RdejaxError: see `Registry.find`.
    """
    return _RULES.find(name)


def require_asked(stored: str, asked: str | None, source: str) -> None:
    """Refuses to run a Python file that only a file of somebody's names.

    Weights and runs may come from anywhere, and a memory rule in a file is a program.

    Args:
      stored: memory rule that the file names.
      asked: memory rule that the caller names; None or empty leaves the choice to the file.
      source: the file, for the message.

    Raises:
      RdejaxError: `stored` is a Python file, and nothing is asked for in its place.
    """
    if str(stored).endswith(".py") and not asked:
        raise RdejaxError(
            f"{source}: its memory rule is the program {stored}, which was not run; if you trust "
            f"it, name it yourself (--memory {stored}, or memory={stored!r}), or another rule"
        )


def rule_settings(name: str) -> dict[str, Any]:
    """Settings of a rule and their defaults: the keywords of its constructor."""
    if not isinstance(name, str):
        raise RdejaxError(f"memory={str(name)[:80]}: give text, the name of a rule")
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
    try:
        hints = get_type_hints(find_rule(rule).__init__)
    except NameError:  # a user's rule whose annotations are for the type checker only
        return
    wanted = hints.get(name, Any)
    allowed = get_args(wanted) or (wanted,)
    # Arrays are what sweeps put in place of numbers.
    if hasattr(value, "shape") or not set(allowed) <= set(_KINDS) or type(value) in allowed:
        return
    if type(value) is int and float in allowed:
        return
    kinds = " or ".join(_KINDS[kind] for kind in allowed)
    raise RdejaxError(f"{name}={str(value)[:80]}: memory {rule!r} takes {kinds}")


def make_rule(
    name: str, *, key_channels: int, value_channels: int, rngs: nnx.Rngs, **settings: Any
) -> MemoryRule:
    """Builds the rule `name`.

    Raises:
      RdejaxError: unknown rule, or a setting that it does not have or not take.
    """
    known = rule_settings(name)
    for key in settings:
        if key not in known:
            raise RdejaxError(
                f"memory rule {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}"
            )
        check_setting(name, key, settings[key])
    rule = find_rule(name)
    return with_constants(
        rule(key_channels=key_channels, value_channels=value_channels, rngs=rngs, **settings)
    )

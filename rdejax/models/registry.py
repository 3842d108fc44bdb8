"""Systems by name."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import MemoryRule
from rdejax.models.protocol import System
from rdejax.models.settings import Settings
from rdejax.nn.constants import WEIGHTS, constants_of
from rdejax.registry import Registry

# Of channels and the like.
_LARGEST = 1 << 16
_SYSTEMS = Registry[System]("system", "rdejax.models")


def register(name: str) -> Callable[[type[System]], type[System]]:
    """Class decorator: makes a `System` known by `name`."""
    return _SYSTEMS.register(name)


def names() -> tuple[str, ...]:
    """Names of all systems."""
    return _SYSTEMS.names()


def find_system(name: str) -> type[System]:
    """The class registered as `name`.

    Raises:
      RdejaxError: no such system; names the known ones.
    """
    return _SYSTEMS.find(name)


def _builder(
    name: str,
    config: Mapping[str, Any] | None,
    settings: Settings | None,
    overrides: dict[str, Any],
) -> Callable[..., System]:
    system = find_system(name)
    chosen = settings or system.default_settings
    if overrides:
        chosen = chosen.override(**overrides)
    sizes = _config(system, config or {})
    return lambda key, rngs=nnx.Rngs: system(sizes, chosen, rngs=rngs(key))


def _config(system: type[System], values: Mapping[str, Any]) -> Any:
    usual = {field.name: field.default for field in dataclasses.fields(system.Config)}
    # JSON, which weights files keep them in, has no tuples; modules want what can be hashed.
    sizes = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    for name, value in sizes.items():
        if name not in usual:
            raise RdejaxError(
                f"system {system.name!r} has no size {name!r}; it has {', '.join(usual)}"
            )
        if not _is_like(value, usual[name]):
            raise RdejaxError(
                f"system {system.name!r}: size {name}={str(value)[:80]} is none; it is like "
                f"{usual[name]!r}, with numbers up to {_LARGEST}"
            )
    return system.Config(**sizes)


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a size, which may come from anybody's file, is of the kind that it is by default."""
    if isinstance(usual, tuple) and isinstance(value, tuple) and len(value) == len(usual):
        return all(map(_is_like, value, usual))
    if type(usual) is int:
        return type(value) is int and 0 <= value <= _LARGEST
    return type(value) is type(usual) and not isinstance(value, tuple)


def create(
    name: str,
    *,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    **overrides: Any,
) -> System:
    """A system with random weights.

    Args:
      name: see `names`.
      seed: of the initial weights.
      config: sizes of its networks, fields of its `Config`; others are the published ones.
      settings: inference settings; default: the system's own.
      **overrides: changes to the settings, see `Settings.override`.
    """
    # Jitted, for op by op the initialisers are some 150 compilations; the seed is an argument, so
    # that a cached compilation serves every seed.
    return nnx.jit(_builder(name, config, settings, overrides))(jax.random.key(seed))


def outline(
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> System:
    """A system whose weights are shapes only, to be filled by `rdejax.models.weights.load_into`.

    Constants, arrays that are no weights, are there.
    """
    build = _builder(name, config, settings, {})
    model = nnx.eval_shape(lambda key: build(key, _OneKey), jax.random.key(0))
    if jax.tree.leaves(constants_of(model)):
        # XLA leaves out the weights, which nothing here needs.
        nnx.update(model, nnx.jit(lambda key: constants_of(build(key)))(jax.random.key(0)))
    return model


class _OneStream(nnx.RngStream):
    def __call__(self) -> jax.Array:
        return self.key[...]


class _OneKey(nnx.Rngs):
    """Gives one key over and over, which is quicker to trace: for shapes any key will do."""

    def __init__(self, key: jax.Array):
        self.default = _OneStream(key, tag="default")


def fresh_rule(model: System) -> MemoryRule:
    """The model's memory rule as it starts, for a model whose own weights may be shapes only."""
    config = dataclasses.asdict(model.config)
    build = _builder(model.name, config, model.settings, {})
    # Jitted, so that the networks around the rule are not computed.
    return nnx.jit(lambda key: build(key).memory)(jax.random.key(0))  # type: ignore[attr-defined]


def resettled(model: System, **overrides: Any) -> System:
    """The same networks, weights shared, run with other settings.

    Args:
      model: the system.
      **overrides: changes to its settings that leave the weights as they are, see
        `Settings.override`.
    """
    settings = model.settings.override(**overrides)
    other = outline(model.name, config=dataclasses.asdict(model.config), settings=settings)
    nnx.update(other, nnx.state(model, WEIGHTS))
    return other

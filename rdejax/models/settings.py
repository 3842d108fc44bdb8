"""How a system is run, as opposed to what it learned."""

import dataclasses
from typing import Any, Self, get_args, get_type_hints

import numpy as np
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.protocol import MemoryRule
from rdejax.memory.registry import check_setting, make_rule, rule_settings

# What it is multiplied by is at most some hundred; numbers must not overflow.
_NEAREST = 1e6
_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Inference settings; every one can be overridden when a model is loaded.

    A system with settings of its own extends it, and has one as its `System.default_settings`.

    Attributes:
      every: memorise every n-th frame (theta of the RDE paper: 3 on DAVIS, 4 on YouTube-VOS).
      size: shorter side, in pixels, that frames are resized to before the network; None keeps the
        source's. Masks always come back at the source's size.
      enlarge: how many times larger the frames of smaller videos are made, at most, towards `size`;
        1: never. Small objects get more positions of the stride-16 grid, at the cost of as many
        more to compute.
      zoom: how many times larger than `size` frames are worked at, at most, where the first mask's
        smallest object is small (`rdejax.propagate.geometry.Geometry.zoom_for`); 1: never. What it
        costs grows with its square. Smaller videos still become at most `enlarge` times larger.
      near: how strongly a pixel that several objects claim goes to the one whose latest mask is
        nearest, in logits for each 16 pixels of working resolution (`rdejax.propagate.nearness`);
        0: not at all. Objects that look alike keep their ids; what is background, and videos of one
        object, stay as they are.
      memory: name of the memory rule, or a Python file that registers one.
      memory_settings: the rule's settings as sorted (name, value) pairs; others keep its defaults.
      pad: sides are padded to multiples of this (a multiple of 16). Larger values mean fewer
        different shapes, so fewer compilations over a mixed set of videos.
      precision: "float32", or "bfloat16" for accelerators: networks compute in it; affinities,
        softmax and aggregation stay in float32. On CPUs, which would take longer, it is refused.
    """

    every: int = 3
    size: int | None = None
    memory: str = "rde"
    memory_settings: tuple[tuple[str, Any], ...] = ()
    pad: int = 16
    enlarge: float = 1.0
    zoom: float = 1.0
    near: float = 0.0
    precision: str = "float32"

    def __post_init__(self):
        for name, hint in get_type_hints(type(self)).items():
            kinds = get_args(hint) or (hint,)
            if not set(kinds) <= {*_WORDS, type(None)}:
                continue
            value = getattr(self, name)
            if isinstance(value, np.number):
                object.__setattr__(self, name, value := value.item())
            # True is no number here.
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                wanted = " or ".join(_WORDS.get(kind, "None") for kind in kinds)
                raise RdejaxError(f"{name}={repr(value)[:80]}: give {wanted}")
        if self.every < 1:
            raise RdejaxError(f"every={self.every}: give 1 (memorise each frame) or more")
        if self.size is not None and self.size < 16:
            raise RdejaxError(f"size={self.size}: the shorter side must be at least 16 pixels")
        if not 1 <= self.enlarge < float("inf"):
            raise RdejaxError(f"enlarge={self.enlarge}: give a factor of 1 (never) or more")
        if not 1 <= self.zoom <= 8:
            raise RdejaxError(f"zoom={self.zoom}: give a factor from 1 (never) to 8")
        if not 0 <= self.near <= _NEAREST:
            raise RdejaxError(f"near={self.near}: give 0 (not at all) or more, up to {_NEAREST}")
        if self.pad < 16 or self.pad % 16:
            raise RdejaxError(f"pad={self.pad}: give a positive multiple of 16")
        if self.precision not in ("float32", "bfloat16"):
            raise RdejaxError(f"precision={self.precision!r}: give 'float32' or 'bfloat16'")

    def override(self, **changes: Any) -> Self:
        """These settings with changes; what is no field here is a setting of the memory rule.

        Changing the rule drops the old rule's settings except those the new one shares.

        Raises:
          RdejaxError: a setting that neither this class nor the rule has.
        """
        own = {f.name for f in dataclasses.fields(self)} - {"memory_settings"}
        memory = changes.get("memory") or self.memory
        known = rule_settings(memory)
        rule = {k: v for k, v in dict(self.memory_settings).items() if k in known}
        for name, value in changes.items():
            if name in own:
                continue
            if name not in known:
                have = ", ".join(sorted(own | set(known)))
                raise RdejaxError(f"setting {name!r} is unknown; with memory {memory!r} use {have}")
            check_setting(memory, name, value)
            rule[name] = value
        return dataclasses.replace(
            self,
            **{k: v for k, v in changes.items() if k in own},
            memory_settings=tuple(sorted(rule.items())),
        )

    def make_rule(self, key_channels: int, value_channels: int, *, rngs: nnx.Rngs) -> MemoryRule:
        """The memory rule that they name, for keys and values of these widths.

        Raises:
          RdejaxError: unknown rule, or a setting that it does not have or take.
        """
        return make_rule(
            self.memory,
            key_channels=key_channels,
            value_channels=value_channels,
            rngs=rngs,
            **dict(self.memory_settings),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return {**dataclasses.asdict(self), "memory_settings": dict(self.memory_settings)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `as_dict`."""
        rule = tuple(sorted(values.get("memory_settings", {}).items()))
        return cls(**{**values, "memory_settings": rule})

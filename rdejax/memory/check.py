"""The contract of memory rules as a check with sentences, for rules of one's own."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from rdejax.errors import RdejaxError
from rdejax.memory.breach import (
    Breach,
    check_alike,
    check_finite,
    check_leaves,
    check_readout,
    close,
    difference,
    numbers,
    numbers_of,
    sentence,
)
from rdejax.memory.protocol import Masks, MemoryRule
from rdejax.memory.registry import find_rule
from rdejax.nn.constants import constants_of, with_constants

# Small, and no two alike, so that axes in the wrong order show.
_H, _W, _CK, _CV, _O, _N = 6, 7, 16, 20, 2, 5


@dataclasses.dataclass(frozen=True)
class RuleCheck:
    """A memory rule that keeps the contract.

    Attributes:
      name: of its class.
      checks: what was looked at, one sentence each.
      state_bytes: size of its state on a grid of 6 x 7 positions with two objects.
      notes: what is no fault, but worth knowing.
    """

    name: str
    checks: tuple[str, ...]
    state_bytes: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.name} keeps the contract of memory rules:"]
        lines += [f"  {text}" for text in self.checks]
        lines += [f"  note: {text}" for text in self.notes]
        return "\n".join(lines)


def check_rule(rule: str | type[MemoryRule], **settings: Any) -> RuleCheck:
    """Puts a memory rule through its contract; takes seconds, needs no video and no weights.

    Args:
      rule: the class, a Python file that registers one, or a registered name.
      **settings: of the rule, in place of its defaults.

    Returns:
      What was checked; `print` it.

    Raises:
      RdejaxError: the rule breaks the contract; a sentence for each breach: where, what, and what
        to do.
    """
    if isinstance(rule, str):
        rule = find_rule(rule)
    return _Checker(rule, settings).run()


class _Checker:
    """One rule; each `_check_*` raises `Breach`, and its first line says what it looked at."""

    def __init__(self, rule: Any, settings: dict[str, Any]):
        if not (isinstance(rule, type) and issubclass(rule, MemoryRule)):
            raise RdejaxError(
                f"{rule!r}: no memory rule; give a class that extends "
                "rdejax.memory.protocol.MemoryRule, a .py file or a name"
            )
        self.rule, self.settings = rule, settings
        try:
            self.file = str(Path(inspect.getfile(rule)).resolve())
        except (OSError, TypeError):  # made in an interactive session
            self.file = rule.__module__
        self.notes: list[str] = []

    def run(self) -> RuleCheck:
        """All checks; those that build on a broken one are left out."""
        breaches: list[str] = []
        names: list[str] = []
        # The ground that the others stand on.
        ground = (
            self._check_constructor,
            self._check_shapes,
            self._check_purity,
            self._check_jit,
        )
        further = (
            self._check_constants,
            self._check_frames,
            self._check_slots,
            self._check_empty_mask,
            self._check_gradients,
            self._check_groups,
            self._check_capacity,
        )
        for check in (*ground, *further):
            if breaches and check not in further[1:]:
                break
            try:
                self._translated(check)
            except Breach as breach:
                breaches.append(str(breach))
            names.append((check.__doc__ or "").partition("\n")[0])
        name = self.rule.__name__
        if breaches:
            count = "1 breach" if len(breaches) == 1 else f"{len(breaches)} breaches"
            raise RdejaxError("\n  ".join([f"{name}: {count} of the contract", *breaches]))
        size = sum(np.asarray(numbers(x)).nbytes for x in jax.tree.leaves(self.state))
        return RuleCheck(name, tuple(names), size, tuple(self.notes))

    def _translated(self, check: Callable[[], None]) -> None:
        """An exception of the rule's own becomes a sentence with the line in its file."""
        try:
            check()
        except (Breach, KeyboardInterrupt):
            raise
        except Exception as error:
            raise Breach(sentence(error, self.file)) from error

    def _check_constructor(self) -> None:
        """It is made with key_channels, value_channels, rngs, and settings that have defaults."""
        parameters = inspect.signature(self.rule.__init__).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        needed = ("key_channels", "value_channels", "rngs")
        for name in needed:
            if name not in parameters and not takes_all:
                raise Breach(f"__init__ takes no {name!r}; add it as a keyword (it may ignore it)")
        for name, p in list(parameters.items())[1:]:
            free = p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            if name not in needed and not free and p.default is p.empty:
                raise Breach(f"__init__: setting {name!r} has no default; give it one")
            if p.kind is p.POSITIONAL_ONLY:
                raise Breach(f"__init__: {name!r} must be a keyword; put a * before it")
        for name in self.settings:
            if name not in parameters and not takes_all:
                raise Breach(f"__init__ has no setting {name!r}")
        self.made = self._make(0)
        for name in self.made.trained_with:
            if not hasattr(self.made, name):
                raise Breach(
                    f"trained_with names {name!r}, which is no attribute of the rule; set "
                    f"self.{name} in __init__"
                )

    def _make(self, seed: int) -> MemoryRule:
        made = self.rule(key_channels=_CK, value_channels=_CV, rngs=nnx.Rngs(seed), **self.settings)
        return with_constants(made)

    def _check_shapes(self) -> None:
        """Its state is a pytree of arrays; write keeps shapes and dtypes, read gives a readout."""
        for h, w in ((_H, _W), (8, 5)):
            state = self.made.init(*_entry(0, h=h, w=w))
            check_leaves(state, "init")
            state = self._with_room(state, 1)
            after = self.made.write(state, *_entry(1, h=h, w=w))
            check_alike(state, after, "write")
            queries = _query(h=h, w=w)[: self._at_once]
            answer = self.made.read(after, queries)
            if not (isinstance(answer, tuple) and len(answer) == 2):
                raise Breach(
                    f"read returns {type(answer).__name__}; return the readout and the state"
                )
            check_readout(answer[0], (len(queries), _O, h, w, _CV))
            check_alike(after, answer[1], "read")
        self.state = self._started(4)

    def _check_jit(self) -> None:
        """Compiled, a scan over writes is the same as a loop, and compiles once."""
        entries = [_entry(i) for i in range(1, 5)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *entries)
        scanned, _ = jax.lax.scan(lambda s, e: (self.made.write(s, *e), None), self.state, stacked)
        write = jax.jit(self.made.write)
        looped = self.state
        for entry in entries:
            looped = write(looped, *entry)
        where = difference(scanned, looped)
        if where:
            raise Breach(
                f"write: a scan differs from a loop, {where}; it must depend on its arguments alone"
            )
        jax.jit(self.made.read)(looped, _query()[: self._at_once])
        self.later = looped

    def _check_constants(self) -> None:
        """Arrays that it holds beside its weights do not depend on rngs."""
        where = difference(constants_of(self.made), constants_of(self._make(1)))
        if where:
            raise Breach(
                f"__init__ draws a constant from rngs, {where}; constants are not stored: make it "
                "an nnx.Param, or draw it from a fixed seed"
            )

    def _check_purity(self) -> None:
        """Its methods leave the rule and their arguments as they were, and give the same twice."""
        attributes = {k: id(v) for k, v in vars(self.made).items()}
        before = jax.tree.map(np.array, numbers_of(self.state))
        first = self.made.write(self.state, *_entry(9))
        second = self.made.write(self.state, *_entry(9))
        self.made.read(self.state, _query()[: self._at_once])
        changed = [k for k, v in vars(self.made).items() if attributes.get(k) != id(v)]
        if changed:
            raise Breach(
                f"write or read changes self.{changed[0]}; what changes belongs into the state"
            )
        if where := difference(first, second):
            raise Breach(f"write gives another state the second time, {where}; it must be pure")
        if where := difference(before, numbers_of(self.state)):
            raise Breach(f"write changes the state that it is given, {where}; return a new one")

    def _check_frames(self) -> None:
        """A frame is read the same alone and among others, and the readout is finite."""
        query = _query()
        if self.made.recurrent:
            out, state = self.made.read(self.later, query[:1])
            check_finite(out, "read")
            return
        together, state = self.made.read(self.later, query)
        check_finite(together, "read")
        if where := difference(self.later, state):
            raise Breach(
                f"read changes the state, {where}; set `recurrent = True` in the class, or return "
                "the state as it came"
            )
        alone = jnp.concatenate([self.made.read(self.later, q[None])[0] for q in query])
        if not close(together, alone):
            raise Breach("read: a frame is read differently beside others; treat frames apart")

    def _check_slots(self) -> None:
        """Objects are alike and apart: leaving one out or swapping two changes no other."""
        for writes in (0, 2):
            both = self._readout(writes, np.array([0, 1]))
            alone = self._readout(writes, np.array([1]))
            swapped = self._readout(writes, np.array([1, 0]))
            method = "write" if writes else "init or read"
            gap = float(jnp.abs(both[:, 1:] - alone).max())
            if not close(both[:, 1:], alone):
                raise Breach(
                    f"{method}: a slot leaks into another: the readout of object 2 changes by "
                    f"{gap:.3g} when object 1 is left out; work on each object alone (no sum, mean "
                    "or softmax over the axis o)"
                )
            if not close(both, swapped[:, ::-1]):
                raise Breach(f"{method}: the order of the objects matters; treat every slot alike")

    def _check_empty_mask(self) -> None:
        """An object that is nowhere to be seen gives no NaN."""
        readout = self._readout(2, np.array([0, 1]), empty=True)
        check_finite(readout, "an object with an empty mask: read")

    def _check_gradients(self) -> None:
        """Gradients reach what was memorised, and every weight."""
        graph, weights, rest = nnx.split(self.made.as_trained(), nnx.Param, ...)
        # Off the start, where a weight that is zero hides those before it.
        rng = np.random.default_rng(0)
        weights = jax.tree.map(
            lambda x: x + jnp.asarray(0.05 * rng.normal(size=x.shape), x.dtype), weights
        )

        def loss(weights: Any, values: Array) -> Array:
            made = nnx.merge(graph, weights, rest)
            entries = [_entry(i) for i in range(3)]
            entries = [(k, v, m) for (k, _, m), v in zip(entries, values, strict=True)]
            state = made.init(*entries[0])
            room = made.capacity_for(2)
            state = state if room is None else made.reserve(state, room)
            for entry in entries[1:]:
                state = made.write(state, *entry)
            return (made.read(state, _query()[: self._at_once])[0] ** 2).sum()

        values = jnp.stack([_entry(i)[1] for i in range(3)])
        of_weights, of_values = jax.jit(jax.grad(loss, argnums=(0, 1)))(weights, values)
        reached = jnp.abs(of_values).max(axis=(1, 2, 3, 4))
        if not bool(jnp.isfinite(reached).all()):
            raise Breach(
                "gradients: not finite; look for a square root, a norm or a quotient at 0, or a "
                "`where` around one"
            )
        if not bool((reached > 0).any()):
            raise Breach(
                "gradients: none reaches the values that were memorised; look for stop_gradient, "
                "argmax, rounding or a comparison between value and readout"
            )
        if not bool(reached[0] > 0):
            self.notes.append("after two writes nothing is left of the first frame")
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(of_weights)):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not bool(jnp.isfinite(leaf).all()):
                raise Breach(f"gradients: that of the weight {name} is not finite")
            if not bool(jnp.abs(leaf).max() > 0):
                raise Breach(
                    f"gradients: the weight {name} gets none, so it cannot be trained; use it in "
                    "init, write or read"
                )

    def _check_groups(self) -> None:
        """Mapped over groups of objects it gives what it gives for each."""
        pairs = [_entry(i) for i in (1, 2)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *pairs)
        states = jax.tree.map(lambda x: jnp.stack([x, x]), self.state)
        mapped = jax.vmap(self.made.write)(states, *stacked)
        for i, entry in enumerate(pairs):
            alone = self.made.write(self.state, *entry)
            if where := difference(jax.tree.map(lambda x, i=i: x[i], mapped), alone):
                raise Breach(f"write under jax.vmap differs, {where}")

    def _check_capacity(self) -> None:
        """If it grows, reserving room changes nothing that is read."""
        rooms = [self.made.capacity_for(n) for n in range(12)]
        if all(room is None for room in rooms):
            return
        if any(room is None for room in rooms) or rooms != sorted(rooms, key=lambda r: r or 0):
            raise Breach(f"capacity_for(0..11) gives {rooms}; give numbers that do not fall")
        small = self._started(1)
        large = self.made.reserve(small, rooms[-1] or 0)
        if self.made.capacity(large) < (rooms[-1] or 0):
            raise Breach(f"reserve({rooms[-1]}) leaves a capacity of {self.made.capacity(large)}")
        query = _query()[: self._at_once]
        if not close(self.made.read(small, query)[0], self.made.read(large, query)[0]):
            raise Breach("reserve changes what is read; places that hold nothing must not count")

    @property
    def _at_once(self) -> int:
        return 1 if self.made.recurrent else _N

    def _with_room(self, state: Any, writes: int) -> Any:
        room = self.made.capacity_for(writes)
        return state if room is None else self.made.reserve(state, room)

    def _started(self, writes: int) -> Any:
        return self._with_room(self.made.init(*_entry(0)), writes)

    def _readout(self, writes: int, pick: np.ndarray, *, empty: bool = False) -> Array:
        def chosen(seed: int) -> tuple[Array, Array, Masks]:
            key, value, masks = _entry(seed)
            if empty:
                masks = jax.tree.map(lambda x: x.at[0].set(0.0), masks)
            return key, value[pick], jax.tree.map(lambda x: x[pick], masks)

        state = self._with_room(self.made.init(*chosen(0)), max(writes, 1))
        for i in range(writes):
            state = self.made.write(state, *chosen(i + 1))
        return self.made.read(state, _query()[: self._at_once])[0]


def _entry(seed: int, h: int = _H, w: int = _W) -> tuple[Array, Array, Masks]:
    rng = np.random.default_rng(seed)
    key = jnp.asarray(rng.normal(size=(h, w, _CK)), jnp.float32)
    value = jnp.asarray(rng.normal(size=(_O, h, w, _CV)), jnp.float32)
    soft = jnp.asarray(rng.uniform(size=(_O, 16 * h, 16 * w)), jnp.float32)
    return key, value, Masks(soft=soft, hard=(soft > 0.5).astype(jnp.float32))


def _query(h: int = _H, w: int = _W) -> Array:
    rng = np.random.default_rng(99)
    return jnp.asarray(rng.normal(size=(_N, h, w, _CK)), jnp.float32)

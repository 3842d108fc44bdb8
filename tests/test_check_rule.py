"""`check_rule`: sound rules pass, and every way to break the contract is named in a sentence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rdejax.errors import RdejaxError
from rdejax.memory.check import check_rule
from rdejax.memory.protocol import MemoryRule

EXAMPLES = Path(__file__).parents[1] / "examples"


class Latest(MemoryRule):
    """Returns the latest value wherever it is asked; the least that keeps the contract."""

    gain = 1.0

    def __init__(self, *, key_channels, value_channels, rngs, top_k: int | None = None):
        self.top_k = top_k

    def init(self, key, value, masks):
        return {"value": value, "count": jnp.zeros((), jnp.int32)}

    def read(self, state, query):
        readout = jnp.broadcast_to(state["value"], (query.shape[0], *state["value"].shape))
        return self.gain * readout, state

    def write(self, state, key, value, masks):
        return {"value": value, "count": state["count"] + 1}


class Grows(Latest):
    def write(self, state, key, value, masks):
        return {**state, "value": jnp.concatenate([state["value"], value], axis=1)}


class Fields(Latest):
    def write(self, state, key, value, masks):
        return {"value": value}


class Dtype(Latest):
    def write(self, state, key, value, masks):
        return {"value": value, "count": state["count"] + 0.5}


class Number(Latest):
    def init(self, key, value, masks):
        return {"value": value, "count": 0}


class Shape(Latest):
    def read(self, state, query):
        return super().read(state, query)[0].swapaxes(0, 1), state


class OnlyReadout(Latest):
    def read(self, state, query):
        return super().read(state, query)[0]


class Leaks(Latest):
    def write(self, state, key, value, masks):
        return {"value": value - value.mean(axis=0, keepdims=True), "count": state["count"]}


class Ordered(Latest):
    def init(self, key, value, masks):
        o = value.shape[0]
        return super().init(key, value * (1.0 + jnp.arange(o)[::-1, None, None, None]), masks)


class Detached(Latest):
    def read(self, state, query):
        readout, state = super().read(state, query)
        return jax.lax.stop_gradient(readout), state


class Unused(Latest):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.gate = nnx.Param(jnp.zeros(3))


class Remembers(Latest):
    def write(self, state, key, value, masks):
        self.latest = key
        return super().write(state, key, value, masks)


class Counts(Latest):
    def read(self, state, query):
        readout, _ = super().read(state, query)
        return readout, {**state, "count": state["count"] + 1}


class Branches(Latest):
    def write(self, state, key, value, masks):
        if state["count"] > 2:
            value = state["value"]
        return super().write(state, key, value, masks)


class Numpy(Latest):
    def write(self, state, key, value, masks):
        return super().write(state, key, jnp.asarray(np.tanh(value)), masks)


class Empty(Latest):
    def write(self, state, key, value, masks):
        share = masks.hard / masks.hard.sum(axis=(1, 2), keepdims=True)
        return super().write(state, key, value * share.sum(axis=(1, 2))[:, None, None, None], masks)


class Neighbours(Latest):
    def read(self, state, query):
        readout, state = super().read(state, query)
        return readout * jnp.broadcast_to(1.0 + query.mean(), readout.shape), state


class Drawn(Latest):
    def __init__(self, *, key_channels, value_channels, rngs):
        self.codes = jax.random.normal(rngs.params(), (4,))


class NoRngs(Latest):
    def __init__(self, *, key_channels, value_channels):
        pass


class NoDefault(Latest):
    def __init__(self, *, key_channels, value_channels, rngs, decay):
        pass


class Untrained(Latest):
    trained_with = {"temperature": 1.0}


class Fails(Latest):
    def write(self, state, key, value, masks):
        return super().write(state, key, value @ key, masks)


BROKEN = (
    (
        Grows,
        r"write: state\['value'\] grows from \[2, 6, 7, 20\] to \[2, 12, 7, 20\].*capacity_for",
    ),
    (Fields, "write returns dict in place of dict, or with other fields"),
    (Dtype, r"state\['count'\] changes from int32 to float32"),
    (Number, r"init: state\['count'\] is int, no JAX array"),
    (Shape, r"read: wrong shape: the readout is \[2, 5, 6, 7, 20\].* is \[5, 2, 6, 7, 20\]"),
    (OnlyReadout, "read returns .*; return the readout and the state"),
    (Leaks, "write: a slot leaks into another: the readout of object 2 changes by .* is left out"),
    (Ordered, "init or read: the order of the objects matters; treat every slot alike"),
    (Detached, "gradients: none reaches the values .*stop_gradient"),
    (Unused, "the weight gate gets none, so it cannot be trained"),
    (Remembers, "write or read changes self.latest; what changes belongs into the state"),
    (Counts, r"read changes the state, state\['count'\] by 1; set `recurrent = True`"),
    (Branches, r"test_check_rule.py, line \d+: decides by the value of an array .*lax.cond"),
    (Numpy, r"test_check_rule.py, line \d+: calls NumPy with JAX arrays"),
    (Empty, "an object with an empty mask: read gives NaN"),
    (Neighbours, "a frame is read differently beside others"),
    (Drawn, "draws a constant from rngs, .*nnx.Param"),
    (NoRngs, "__init__ takes no 'rngs'"),
    (NoDefault, "setting 'decay' has no default"),
    (Untrained, "trained_with names 'temperature', which is no attribute"),
    (Fails, r"test_check_rule.py, line \d+: (TypeError|ValueError): "),
)


@pytest.mark.parametrize(("rule", "sentence"), BROKEN, ids=[rule.__name__ for rule, _ in BROKEN])
def test_a_breach_is_named(rule, sentence) -> None:
    with pytest.raises(RdejaxError, match=sentence) as error:
        check_rule(rule)
    assert str(error.value).startswith(f"{rule.__name__}: 1 breach of the contract\n")
    assert "Traceback" not in str(error.value) and "true_fun" not in str(error.value)


def test_a_sound_rule_passes_and_says_what_was_looked_at() -> None:
    found = check_rule(Latest, top_k=3)
    assert found.name == "Latest" and len(found.checks) == 11
    assert found.state_bytes == 4 * (2 * 6 * 7 * 20 + 1)
    assert found.notes == ("after two writes nothing is left of the first frame",)
    assert "Latest keeps the contract" in str(found) and "note: after two" in str(found)


def test_several_breaches_are_named_together() -> None:
    class Both(Leaks, Detached):
        pass

    with pytest.raises(RdejaxError, match="Both: 2 breaches") as error:
        check_rule(Both)
    assert "a slot leaks" in str(error.value) and "stop_gradient" in str(error.value)


@pytest.mark.parametrize("name", ["reservoir_memory.py", "gated_memory.py"])
def test_the_examples_pass(name) -> None:
    assert check_rule(str(EXAMPLES / name)).notes == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["average", "bank", "merge", "rde", "replace", "swem", "template", "xmem"]
)
def test_the_rules_of_the_package_pass(name) -> None:
    assert check_rule(name).checks


def test_what_is_no_rule_is_refused(tmp_path) -> None:
    for wrong in (3, str, Latest(key_channels=1, value_channels=1, rngs=None)):
        with pytest.raises(RdejaxError, match="no memory rule; give a class"):
            check_rule(wrong)
    with pytest.raises(RdejaxError, match="has no setting 'depth'"):
        check_rule(Latest, depth=3)
    with pytest.raises(RdejaxError, match="no such file"):
        check_rule(str(tmp_path / "none.py"))

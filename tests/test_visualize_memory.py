"""What a memory is shown to hold and to look at is what the system really keeps and reads."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from io_helpers import moving_frames, square_mask, tiny_weights, write_folder, write_mask_image

import rdejax
from rdejax.errors import RdejaxError
from rdejax.memory.affinity import (
    anisotropic_l2,
    similarity,
    softmax_weights,
    top_k_weights,
)
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule
from rdejax.memory.views import Arrows, Distribution, Heat, Moment, Numbers
from rdejax.models.grouped import OwnKeys, SharedKeys
from rdejax.models.matching import Matching, MatchingState
from rdejax.models.protocol import State, System
from rdejax.models.settings import Settings
from rdejax.nn.xmem import AnisotropicKey
from rdejax.propagate.geometry import Geometry
from rdejax.propagate.slots import Layout
from rdejax.visualize.bases import assign
from rdejax.visualize.commands_memory import BasesPicture, Pca, Relevance
from rdejax.visualize.commands_views import ViewPicture
from rdejax.visualize.grid import fit
from rdejax.visualize.relevance import check_on_grid, relevance
from rdejax.visualize.trace import (
    Step,
    entry_names,
    entry_of_latest,
    view_of,
    walk,
    written_frames,
)
from rdejax.visualize.views import (
    arrow_sheet,
    heat_sheet,
    histograms,
    mask_rows,
    number_lines,
)

SIZE = (48, 64)
FRAMES = moving_frames(4, SIZE)
MASK = square_mask(SIZE, ids=(3, 7))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a tiny network's weights, a video and its first mask."""
    folder = tmp_path_factory.mktemp("clip")
    # Random weights see nothing; with this bias they see both objects in every frame.
    tiny_weights(
        folder / "tiny.safetensors", poison=lambda arrays: arrays["decoder/pred/bias"].fill(3.0)
    )
    write_folder(folder / "video", FRAMES)
    write_mask_image(folder / "mask.png", MASK)
    return folder


def load(clip, **settings):
    return rdejax.load_model(str(clip / "tiny.safetensors"), every=1, top_k=5, **settings)


def command(kind, clip, **options):
    common = dict(checkpoint=str(clip / "tiny.safetensors"), every=1, top_k=5, width=64)
    return kind(
        video=clip / "video", mask=clip / "mask.png", output=clip / "out.png", **common | options
    )


def test_walk_is_what_inference_does(clip):
    model = load(clip)
    masks = []
    for step in walk(model, FRAMES, {0: MASK}):
        masks.append(step.mask)
        held = step.memory_of(7)
        memory = held.state
        assert held.slot == 1 and int(memory.updates) == step.time
        key = step.query()[0]
        # The latest entry is this frame; another compiled program, so equal up to rounding.
        latest = model.memory.entries.index("L")
        np.testing.assert_allclose(memory.key[latest], key, atol=1e-4 * float(jnp.abs(key).max()))
    np.testing.assert_array_equal(masks, rdejax.segment_video(model, FRAMES, MASK))
    assert {3, 7} <= set(np.unique(masks[-1]))
    with pytest.raises(RdejaxError, match="object 5 has not appeared by frame 3; there are: 3, 7"):
        step.memory_of(5)


@pytest.mark.parametrize("own_keys", [False, True])
def test_memory_of_an_object_in_a_later_group(own_keys):
    layout = Layout(groups=2, slots=2, ids={5: 0, 6: 2, 9: 3}, used=2)
    numbers = np.arange(4).reshape(2, 2)
    state = MatchingState(valid=jnp.ones((2, 2), bool), memory={"x": numbers})
    model = SimpleNamespace(over=OwnKeys if own_keys else SharedKeys, memory=None)
    model.remembered = lambda *where: Matching.remembered(cast(Any, model), *where)
    stream = SimpleNamespace(layout=layout, state=state, model=model)
    step = Step(0, FRAMES[0], MASK, cast(Any, stream))
    held = step.memory_of(9)
    assert held.slot == (0 if own_keys else 1)
    np.testing.assert_array_equal(held.state["x"], 3 if own_keys else [2, 3])


def state_of(name, writes, **settings):
    """A rule and its state after `writes` frames of random keys."""
    rng = np.random.default_rng(0)
    rule = make_rule(name, key_channels=4, value_channels=6, rngs=nnx.Rngs(0), **settings)
    keys = jnp.asarray(rng.normal(size=(writes + 1, 3, 4, 4)), jnp.float32)
    values = jnp.asarray(rng.normal(size=(writes + 1, 2, 3, 4, 6)), jnp.float32)
    nothing = None
    state = rule.init(keys[0], values[0], nothing)
    room = rule.capacity_for(writes)
    state = state if room is None else rule.reserve(state, room)
    for key, value in zip(keys[1:], values[1:], strict=True):
        state = rule.write(state, key, value, nothing)
    return rule, state, jnp.asarray(rng.normal(size=(1, 3, 4, 4)), jnp.float32)


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize(("name", "writes"), [("bank", 2), ("rde", 0), ("rde", 1)])
def test_relevance_is_the_weights_of_the_readout(name, writes, top_k):
    settings = {"strategy": "2F+L"} if name == "rde" else {}
    rule, state, query = state_of(name, writes, top_k=top_k, **settings)
    positions = np.zeros((3, 4), bool)
    positions[1, 2:] = positions[0, 0] = True
    got = relevance(rule, state, query, positions, 1)
    entries = state.key.shape[0]
    # L, F of rde: before the first update one entry counts once; later the first frame twice.
    copies = {("bank", 2): [1] * 3 + [0] * 13, ("rde", 0): [1, 0], ("rde", 1): [1, 2]}[name, writes]
    count = jnp.repeat(jnp.asarray(copies), 12)
    affinity = similarity("l2", query.reshape(12, 4), state.key.reshape(-1, 4))
    weights = (
        softmax_weights(affinity, count) if top_k is None else top_k_weights(affinity, count, top_k)
    )
    expected = weights[positions.ravel()].mean(0).reshape(entries, 3, 4)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert float(got.sum()) == pytest.approx(1.0, abs=1e-5)
    # And they are what the rule sums its values with.
    readout, _ = rule.read(state, query)
    np.testing.assert_allclose(
        jnp.einsum("ehw,ehwc->c", got, state.value[1]),
        readout[0, 1][positions].mean(0),
        atol=1e-5,
    )


def test_relevance_with_shrinkage_and_selection():
    """The weights of the working memory's frames; the others are those of the long-term memory."""
    stores = {"min_mid_term_frames": 2, "max_mid_term_frames": 3, "num_prototypes": 4}
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.uniform(size=shape), jnp.float32)  # noqa: E731
    given = {"key_channels": 4, "value_channels": 6, "rngs": nnx.Rngs(0)}
    rule = make_rule("xmem", **given, **stores, max_long_term_elements=8, top_k=None)
    key = lambda: AnisotropicKey(draw(3, 4, 4), 1 + draw(3, 4, 1), draw(3, 4, 4))  # noqa: E731
    nothing = Masks(jnp.zeros((2, 48, 64)), jnp.zeros((2, 48, 64)))
    state = rule.init(key(), draw(2, 3, 4, 6), nothing)
    for _ in range(2):
        state = rule.write(state, key(), draw(2, 3, 4, 6), nothing)
    query = jax.tree.map(lambda x: x[None], key())
    positions = np.zeros((3, 4), bool)
    positions[1, 2] = True
    got = relevance(rule, state, query, positions, 1)
    scores = anisotropic_l2(
        query.key[0, 1, 2][None],
        query.selection[0, 1, 2][None],
        jnp.concatenate([state.key.key[:2].reshape(-1, 4), state.long.key[:4]]),
        jnp.concatenate([state.key.shrinkage[:2].reshape(-1), state.long.shrinkage[:4]]),
    )
    weights = jax.nn.softmax(scores[0])
    assert int(state.long.valid.sum()) == 4 and got.shape == (3, 3, 4)
    np.testing.assert_allclose(got[:2].reshape(-1), weights[:24], atol=1e-5)
    np.testing.assert_allclose(got.sum(), 1 - weights[24:].sum(), atol=1e-5)
    names = [name for name, _ in entry_names(rule.contents(state), [0, 5, 10])]
    assert names == ["frame 0", "frame 10"]


def test_xmem_says_what_it_holds():
    """Numbers of the stores, usage of what was read, as a view gives them."""
    rule, state, query = state_of("xmem", 2, enable_long_term=False)
    _, state = rule.read(state, query)
    moment = Moment(None, state, query, 0, 0, jnp.ones((3, 4), bool), (0, 1, 2))
    views = rule.views()
    assert views["stores"].at(moment).values == {"working": 36.0}
    usage = views["usage"].at(moment)
    assert usage.values["working"].shape == (36,)
    np.testing.assert_allclose(usage.values["working"].sum(), 12, rtol=1e-5)  # queries
    assert {name: view.kind for name, view in views.items()} == {
        "stores": Numbers,
        "usage": Distribution,
    }


def test_pictures_of_views():
    geometry = Geometry.of((32, 48), None)
    frame = np.zeros((32, 48, 3), np.uint8)
    tiles = {0: fit(frame, 48), 3: fit(frame, 48)}
    places = jnp.asarray([[[4.0, 4.0], [20.0, 40.0]]])
    arrows = Arrows(places, places + 8, jnp.asarray([[1.0, 0.0]]), (3,), ("frame 3",))
    drawn = arrow_sheet(frame, arrows, tiles, geometry, width=48)
    yellow = drawn[..., 0].astype(int) - drawn[..., 2] > 60
    assert drawn.shape[1] == 48 and yellow[:, :24].any()
    assert not yellow[:, 30:].any()  # the arrow of weight 0
    heat = Heat(jnp.zeros((2, 2, 3)).at[0, 0, 0].set(0.5), (0, 3), ("a", "b"))
    sheet = heat_sheet(frame, "query", heat, tiles, geometry, width=48)
    assert sheet.shape[1] == 3 * 48 + 2 * 5
    mask = np.zeros((32, 48), np.uint8)
    assert mask_rows([frame], [7], {"coarse": [mask], "refined": [mask]}, width=48).ndim == 3
    lines = number_lines({1: Numbers({"a": 1.0}, "x"), 2: Numbers({"a": 2.0, "b": 1.0}, "x")})
    assert len(lines.axes[0].lines) == 2
    some = Distribution({"a": jnp.asarray([0.0, 0.1, 0.2]), "b": jnp.zeros(0)}, "x")
    assert len(histograms({3: some, 9: some}).axes) == 2


def test_entries_are_called_by_their_frames():
    written = written_frames(lambda time: time % 3 == 0, start=2, time=10)
    assert written == [2, 3, 6, 9] and written_frames(lambda time: time % 5 == 0, 0, 0) == [0]
    rule, state, _ = state_of("bank", 3)
    assert entry_names(rule.contents(state), written) == [(f"frame {t}", t) for t in written]
    # The first stays, the oldest of the others makes room.
    rule, state, _ = state_of("bank", 3, max_frames=3)
    assert [t for _, t in entry_names(rule.contents(state), written)] == [2, 9, 6]
    # Every second one stays, and the latest is there besides.
    rule, state, _ = state_of("bank", 3, keep_every=2)
    assert [t for _, t in entry_names(rule.contents(state), written)] == [2, 6, 9]
    rule, state, _ = state_of("rde", 3, strategy="F+2L")
    assert entry_names(rule.contents(state), written) == [("L (frame 9)", 9), ("F (frame 2)", 2)]
    rule, state, _ = state_of("average", 3, first=True)
    assert entry_names(rule.contents(state), written) == [("updated", 9), ("F (frame 2)", 2)]


def test_memories_off_the_grid_are_refused():
    rule = make_rule("swem", key_channels=4, value_channels=6, rngs=nnx.Rngs(0), bases=4, top_l=2)
    with pytest.raises(RdejaxError, match="memory rule 'swem' keeps no values on the frame's grid"):
        check_on_grid("swem", rule.contents(None), (3, 4))


def test_bases_come_from_the_state_of_swem():
    rng = np.random.default_rng(0)
    # One iteration of one base: the mean of the class.
    settings = {"bases": 1, "top_l": 1, "iterations": 1}
    rule = make_rule("swem", key_channels=4, value_channels=6, rngs=nnx.Rngs(0), **settings)
    mask = jnp.zeros((1, 48, 64)).at[:, 16:, :32].set(1.0)
    inside = np.asarray(mask[0, ::16, ::16]) > 0
    # Keys of the object point into one half of the space, all others into the other half.
    key = np.abs(rng.normal(size=(3, 4, 4))) * np.where(inside, 1, -1)[..., None]
    state = rule.init(
        jnp.asarray(key, jnp.float32), jnp.ones((1, 3, 4, 6)), Masks(soft=mask, hard=mask)
    )
    index, _ = assign(key, np.asarray(state.update.kappa[0]), rule.tau)
    np.testing.assert_array_equal(index == 1, inside)


@pytest.mark.slow
def test_commands_write_pictures(clip):
    from PIL import Image

    command(Pca, clip, count=2).run()
    with Image.open(clip / "out.png") as image:
        width, height = image.size
    assert width > 2 * 64 and height > 3 * 48
    command(Relevance, clip, frame=3, object=7).run()
    with Image.open(clip / "out.png") as image:
        assert image.size[0] == 4 * 64 + 3 * 5  # the query and RDE, L, F
    command(Relevance, clip, frame=2, pixel=(5, 5), memory="bank", count=1, columns=9).run()
    with Image.open(clip / "out.png") as image:
        assert image.size[0] == 2 * 64 + 5
    bases = ("bases=4", "top_l=4", "seed=1")
    command(BasesPicture, clip, memory="swem", frames=(2, 0), top_k=None, set=bases).run()
    with Image.open(clip / "out.png") as image:
        assert image.size[0] > 2 * 64 + 5 and image.size[1] > 2 * 48 + 5


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Relevance, {"frame": 4}, "frame 4 is not among those that can be shown, 0 to 3"),
        (Relevance, {"frame": 0}, "frame 0 has no memory of object 3 to look at"),
        (Relevance, {"frame": 1, "pixel": (64, 0)}, "pixel 64 0 is outside .* 64x48"),
        (Relevance, {"frame": 1, "pixel": (0, -1)}, "pixel 0 -1 is outside"),
        (Relevance, {"frame": 1, "object": 9}, "object 9 is in no mask .*choose one of 3, 7"),
        (Relevance, {"frame": 1, "count": 0}, "count=0"),
        (Relevance, {"frame": 1, "memory": "none"}, "memory rule 'none' is unknown"),
        (Pca, {"memories": ()}, "no memory named"),
        (Pca, {"frames": (3,), "every": 2}, "frame 3 is not among .*0 to 2 in steps of 2"),
        (Pca, {"count": 0}, "count=0"),
        (Pca, {"width": 3}, "width=3"),
        (Pca, {"memories": ("rde",), "set": ("strategy=F+L",)}, "keeps no recurrent embedding"),
        (Pca, {"set": ("top_k",)}, "--set top_k: give NAME=VALUE"),
        (BasesPicture, {"memory": "rde", "count": 1}, "memory rule 'rde' keeps no bases"),
        (BasesPicture, {"checkpoint": "nowhere"}, "nowhere: no such model"),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(clip, kind, options, message):
    (clip / "out.png").unlink(missing_ok=True)
    with pytest.raises(RdejaxError, match=message):
        command(kind, clip, **options).run()
    assert not (clip / "out.png").exists()


def test_the_entry_of_the_latest_frame():
    def latest(name, writes, **settings):
        rule, state, _ = state_of(name, writes, **settings)
        return entry_of_latest(rule.contents(state))

    assert latest("bank", 3) == 3 and latest("bank", 3, max_frames=3) == 1
    assert latest("rde", 3) == 0 and latest("average", 2, first=True) == 0
    assert latest("rde", 3, strategy="F+L") is None


_MINE = """
from rdejax.memory.average import AverageMemory
from rdejax.memory.protocol import Entries
from rdejax.memory.registry import register

@register("mine")
class Mine(AverageMemory):
    def contents(self, state):
        return Entries(state.key, state.value, ("of mine",), (None,))
"""


def test_a_rule_of_ones_own_says_what_can_be_shown(tmp_path):
    (tmp_path / "mine.py").write_text(_MINE)
    rule, state, query = state_of(str(tmp_path / "mine.py"), 2, top_k=None)
    assert entry_names(rule.contents(state), [0, 4, 8]) == [("of mine", 8)]
    weights = relevance(rule, state, query, np.ones((3, 4), bool), 0)
    assert weights.shape == (1, 3, 4) and float(weights.sum()) == pytest.approx(1.0, abs=1e-5)


class Blind(System):
    """A system that shows nothing of itself."""

    name = "blind"

    def __init__(self):
        self.settings = Settings()


def test_systems_that_show_nothing_are_refused(clip):
    with pytest.raises(RdejaxError, match="'x' is unknown; of model 'blind' .*shows: nothing"):
        view_of(Blind(), "x")
    layout = Layout(groups=1, slots=1, ids={5: 0}, used=1)
    state = State(valid=jnp.ones((1, 1), bool))
    stream = SimpleNamespace(layout=layout, state=state, model=Blind())
    with pytest.raises(RdejaxError, match="'blind' has no memory that this picture can show"):
        Step(0, FRAMES[0], MASK, cast(Any, stream)).memory_of(5)
    with pytest.raises(RdejaxError, match="view '' is unknown; of model 'rde-lite' with memory"):
        command(ViewPicture, clip).run()

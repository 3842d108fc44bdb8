"""Pictures as pure functions: what they show is what went in."""

import cv2
import numpy as np
import pytest
from io_helpers import moving_frames, square_mask

from rdejax.errors import RdejaxError
from rdejax.io.overlay import render_overlay
from rdejax.io.palette import davis_palette
from rdejax.propagate.geometry import Geometry
from rdejax.visualize.bases import assign, base_colours, base_map, base_rows
from rdejax.visualize.embeddings import embedding_rows, fit_basis
from rdejax.visualize.grid import fit, grid, outlined
from rdejax.visualize.measurements import (
    component_times,
    growth_curves,
    running_median,
    stage_milliseconds,
)
from rdejax.visualize.relevance import heat_overlay, mark_pixel, relevance_sheet
from rdejax.visualize.sheet import contact_sheet
from rdejax.visualize.strides import covered, grid_positions, grid_shape, spread
from rdejax.visualize.strip import comparison_strip, draw_boxes, error_boxes
from rdejax.visualize.style import GAP, MARK, distinct_colours

RNG = np.random.default_rng


def flat(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def is_mark(image):
    return (image == MARK).all(axis=-1)


def test_grid_places_tiles_of_any_shape_and_cuts_long_names():
    tiles = [flat(10), flat(20), flat(30)]
    image = grid([tiles[:2], tiles[2:]])
    assert image.shape == (2 * 48 + GAP, 2 * 64 + GAP, 3)
    assert (image[:48, :64] == 10).all() and (image[:48, 64 + GAP :] == 20).all()
    assert (image[48 + GAP :, :64] == 30).all() and (image[48 + GAP :, 64 + GAP :] == 255).all()
    assert (grid([[tiles[0], None]])[:, 64:] == 255).all()
    named = grid([tiles[:2]], columns=["a", "b" * 99], names=["row"], captions=[["x", "y"]])
    assert (named[-48:, -64:] == 20).all()
    # What is written stays within its own tile's width, with white beside it.
    assert (named[:20, -64 - GAP : -64] == 255).all() and (named[:20, -64:] < 100).any()
    assert (named[-48:, :20] < 100).any()


def test_fit_keeps_the_aspect():
    assert fit(flat(7, (480, 854)), 300).shape == (169, 300, 3)
    assert fit(flat(7, (3, 100)), 16).shape == (1, 16, 3)


def test_outline_is_pale_and_lies_inside():
    mask = cv2.resize(square_mask((48, 64), (1,)), (192, 144), interpolation=cv2.INTER_NEAREST)
    pale = (outlined(flat(60), mask) > 200).all(axis=-1)
    inside = square_mask((48, 64), (1,)) > 0
    assert pale.any() and not pale[~inside].any() and not pale[5:8, 5:8].any()


def test_sheet_has_the_colours_of_the_ids_wherever_they_appear():
    frames = moving_frames(5, (48, 64))
    masks = [square_mask((48, 64), ids) for ids in [(1, 44), (44,), (1,), (200, 1), ()]]
    image = contact_sheet(frames, masks, [0, 3, 5, 9, 11], columns=2, width=64, alpha=1.0)
    above = (image.shape[0] - 2 * GAP) // 3 - 48
    assert image.shape == (3 * (48 + above) + 2 * GAP, 2 * 64 + GAP, 3)
    assert 14 <= above <= 30
    for index, mask in enumerate(masks):
        top = (index // 2) * (48 + above + GAP) + above
        left = (index % 2) * (64 + GAP)
        tile = image[top : top + 48, left : left + 64]
        np.testing.assert_array_equal(tile[mask == 0], frames[index][mask == 0])
        for number in set(np.unique(mask)) - {0}:
            inside = cv2.erode((mask == number).astype(np.uint8), np.ones((5, 5))) > 0
            assert inside.any() and (tile[inside] == davis_palette()[number]).all()


def test_boxes_enclose_planted_errors_largest_first():
    truth = np.zeros((480, 640), np.uint8)
    truth[100:400, 100:500] = 1
    planted = [(150, 120, 190, 180), (300, 200, 420, 300), (560, 420, 600, 440), (5, 5, 15, 15)]
    wrong = truth.copy()
    for left, top, right, bottom in planted:
        wrong[top:bottom, left:right] = 2
    boxes = error_boxes(wrong, truth, count=3)
    assert boxes == [planted[1], planted[0], planted[2]]
    assert error_boxes(truth, truth) == [] and error_boxes(wrong, truth, count=0) == []
    # A rim around the whole object is not an error region; what is void is not an error.
    grown = cv2.dilate(truth, np.ones((5, 5)))
    assert error_boxes(grown, truth) == []
    void = truth.copy()
    void[200:300, 300:420] = 255
    assert error_boxes(wrong, void, count=3, void=255) == [planted[0], planted[2], planted[3]]
    # Errors at the border count in full.
    edge = truth.copy()
    edge[460:, 600:] = 1
    assert error_boxes(edge, truth) == [(600, 460, 640, 480)]


def test_drawn_boxes_hide_nothing_inside():
    image, box = flat(90, (90, 120)), (40, 30, 70, 60)
    drawn = draw_boxes(image, [box])
    assert (drawn[30:60, 40:70] == 90).all() and (image == 90).all()
    ys, xs = np.nonzero(is_mark(drawn))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (28, 61, 38, 71)
    # A box as large as the picture is seen, too.
    assert is_mark(draw_boxes(image, [(0, 0, 120, 90)])).sum() == 2 * (118 + 86)
    half = draw_boxes(flat(90, (45, 60)), [box], scale=0.5)
    assert (half[15:30, 20:35] == 90).all() and is_mark(half).any()


def test_strip_boxes_the_bad_method_only():
    frames = [flat(90)] * 2
    truth = [square_mask((48, 64))] * 2
    bad = [truth[0], np.zeros((48, 64), np.uint8)]
    image = comparison_strip(frames, [0, 1], {"good": truth, "bad": bad}, truth, width=64)
    height, left, top = 48, image.shape[1] - 2 * 64 - GAP, image.shape[0] - 3 * 48 - 2 * GAP
    found = np.array(
        [
            [
                is_mark(image[top + y * (height + GAP) :, left + x * (64 + GAP) :][:48, :64]).any()
                for x in range(2)
            ]
            for y in range(3)
        ]
    )
    np.testing.assert_array_equal(found, [[False, False], [False, True], [False, False]])
    # Without a truth, the first method is the measure.
    image = comparison_strip(frames, [0, 1], {"bad": bad, "good": truth}, width=64)
    assert not is_mark(image[: top + 48]).any() and is_mark(image[top + 48 :]).any()


def test_principal_components_recover_data_of_rank_three():
    rng = RNG(0)
    hidden = rng.normal(size=(400, 3)) * [5.0, 2.0, 1.0]
    values = hidden @ rng.normal(size=(3, 17)) + rng.normal(size=17)
    basis = fit_basis(values)
    found = basis.project(values)
    affine = np.c_[found, np.ones(400)]
    weights, *_ = np.linalg.lstsq(affine, hidden, rcond=None)
    np.testing.assert_allclose(affine @ weights, hidden, atol=1e-9)
    np.testing.assert_allclose(basis.axes @ basis.axes.T, np.eye(3), atol=1e-9)
    assert basis.explained.sum() == pytest.approx(1.0)
    assert (np.diff(found.var(axis=0)) < 0).all()
    # Order of the positions does not matter; colours fill the range and can be compared.
    again = fit_basis(values[rng.permutation(400)])
    np.testing.assert_allclose(again.axes, basis.axes, atol=1e-7)
    colours = basis.colours(values.reshape(20, 20, 17))
    assert colours.dtype == np.uint8 and colours.shape == (20, 20, 3)
    assert (colours.reshape(-1, 3).min(0) == 0).all()
    assert (colours.reshape(-1, 3).max(0) == 255).all()


def test_principal_components_of_next_to_nothing():
    assert fit_basis(np.ones((4, 2))).colours(np.ones((3, 2))).shape == (3, 3)
    one = fit_basis(np.arange(5.0)[:, None])
    assert (one.axes[1:] == 0).all() and one.colours(np.array([[0.0], [4.0]]))[1, 0] == 255


def test_positions_of_the_grid():
    # 50x70 is padded to 64x80, by 7 rows above and 5 columns to the left.
    geometry = Geometry.of((50, 70), None)
    assert grid_shape(geometry) == (4, 5)
    rows, columns = grid_positions(geometry)
    np.testing.assert_array_equal(rows, (np.arange(50) + 7) // 16)
    np.testing.assert_array_equal(columns, (np.arange(70) + 5) // 16)
    values = np.arange(20).reshape(4, 5)
    assert spread(values, geometry)[0, 0] == 0 and spread(values, geometry)[49, 69] == 19
    mask = np.zeros((50, 70), bool)
    mask[9:25, 11:27] = True  # rows 16 to 31, columns 16 to 31 of the padded frame
    np.testing.assert_array_equal(np.argwhere(covered(mask, geometry)), [[1, 1]])
    mask[:] = False
    assert not covered(mask, geometry).any()
    mask[30, 30] = True
    assert covered(mask, geometry).sum() == 1
    # Resized to half before padding.
    rows, _ = grid_positions(Geometry.of((96, 128), 48))
    np.testing.assert_array_equal(rows, np.arange(96) // 32)


def test_heat_is_grey_where_nothing_is_looked_at():
    frame = moving_frames(1, (48, 64))[0]
    heat = np.zeros((48, 64))
    heat[:8] = np.linspace(0.01, 1.0, 8)[:, None]
    image = heat_overlay(frame, heat)
    np.testing.assert_array_equal(image[8:, :, 0], cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[8:])
    assert (image[8:, :, 0] == image[8:, :, 2]).all()
    even = heat_overlay(flat(60), heat)[:8, 0].astype(int)
    assert (np.diff(even[:, 0]) > 0).all() and even[-1, 0] > even[-1, 2]


def test_relevance_sheet_has_one_scale():
    heats = np.zeros((2, 48, 64))
    heats[0, 10, 10], heats[1, 10, 10] = 0.2, 0.1
    image = relevance_sheet(
        mark_pixel(flat(60), (32, 24)), "query", [flat(60)] * 2, heats, np.array([0.6, 0.4]),
        ["a", "b"], columns=3, width=64,
    )  # fmt: skip
    assert image.shape[1] == 3 * 64 + 2 * GAP
    query = image[-48:, :64]
    assert (query[24, 32] == 60).all() and query[15:34, 23:42].max() > 200
    tiles = [image[-48:, k * (64 + GAP) :][:, :64] for k in (1, 2)]
    assert tiles[0][10, 10, 0] > tiles[1][10, 10, 0] > 60
    assert (tiles[1][20:] == 60).all()


def test_embeddings_share_one_basis():
    geometry = Geometry.of((48, 64), None)
    rng = RNG(1)
    same, other = rng.normal(size=(2, 3, 4, 8))
    image = embedding_rows(
        [flat(9)] * 2, [0, 5], {"x": [same, other], "y": [other, same]}, geometry, width=64
    )
    left = image.shape[1] - 2 * 64 - GAP
    tile = {
        (y, x): image[-(2 - y) * 48 - (1 - y) * GAP :][:48, left + x * (64 + GAP) :][:, :64]
        for y in range(2)
        for x in range(2)
    }
    np.testing.assert_array_equal(tile[0, 0], tile[1, 1])
    np.testing.assert_array_equal(tile[0, 1], tile[1, 0])
    assert (tile[0, 0] != tile[0, 1]).mean() > 0.5
    assert len(np.unique(tile[0, 0].reshape(-1, 3), axis=0)) == 12  # one colour a position


def test_bases_are_assigned_to_what_they_stand_for():
    rng = RNG(2)
    kappa = np.linalg.qr(rng.normal(size=(8, 8)))[0][:6].reshape(2, 3, 8)
    key = 3.0 * kappa.reshape(6, 8)[[[0, 5, 2], [1, 3, 4]]]
    index, weights = assign(key, kappa, tau=0.05)
    np.testing.assert_array_equal(index, [[0, 5, 2], [1, 3, 4]])
    np.testing.assert_allclose(weights.sum(-1), 1.0)
    np.testing.assert_allclose(np.take_along_axis(weights, index[..., None], -1), 1.0, atol=1e-6)
    # cos = 1 at its own base and 0 at the five others.
    warm = assign(key, kappa, tau=1.0)[1]
    np.testing.assert_allclose(warm.max(-1), np.e / (np.e + 5), rtol=1e-5)
    colours = base_colours(3)
    assert len(np.unique(colours, axis=0)) == 6
    painted = base_map(flat(0), np.full((48, 64), 4), 3, alpha=1.0)
    assert (painted == colours[4]).all()
    image = base_rows(
        [flat(50)], [7], [square_mask((48, 64))], [np.tile(key, (2, 2, 1))[:3, :4]], [kappa],
        Geometry.of((48, 64), None), width=64,
    )  # fmt: skip
    np.testing.assert_array_equal(
        image[-48 * 2 - GAP :, -64:][:48], render_overlay(flat(50), square_mask((48, 64)))
    )


def test_colours_of_a_few_are_those_of_many():
    np.testing.assert_array_equal(distinct_colours(128)[:9], distinct_colours(9))
    assert len(np.unique(distinct_colours(128), axis=0)) > 120


STAGES = {"encode": 0.02, "read": {"median_s": 0.01}, "decode": 0.03, "memorise": 0.06}


def test_times_stack_up():
    run = {"model": "rde", "objects": 1, "every": 3, "stages": STAGES}
    assert stage_milliseconds(run) == pytest.approx(
        {"encode": 20, "read": 10, "decode": 30, "memorise": 20}
    )
    (axes,) = component_times([run, {"label": "mine", "stages": STAGES}]).axes
    bars = [[(bar.get_x(), bar.get_width()) for bar in group] for group in axes.containers]
    np.testing.assert_allclose([b[0] for b in bars], [(0, 20), (20, 10), (30, 30), (60, 20)])
    np.testing.assert_allclose(bars[3][1], (60, 60))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rde, 1 object", "mine"]
    with pytest.raises(RdejaxError, match="x.json: no time of the stage 'decode'"):
        stages = {k: v for k, v in STAGES.items() if k != "decode"}
        component_times([{"stages": stages}], source="x.json")
    with pytest.raises(RdejaxError, match="no run"):
        component_times([])


def test_running_median_leaves_gaps_out():
    values = np.array([1.0, np.nan, 9.0, 2.0, 3.0, np.nan, np.nan, np.nan])
    got = running_median(values, 3)
    np.testing.assert_allclose(got, [1, 5, 5.5, 3, 2.5, 3, np.nan, np.nan])
    np.testing.assert_allclose(running_median(values[2:5], 1), values[2:5])


def test_growth_draws_every_rule():
    def run(name, step):
        return {
            "memory": name,
            "frame": [4, 7, 10],
            "ms_per_frame": [None, 8.0, 9.0],
            "state_bytes": [1e6, 1e6 + step, 1e6 + 2 * step],
        }

    figure = growth_curves([run("rde", 0), run("bank", 1e6)])
    left, right = figure.axes
    np.testing.assert_allclose([line.get_ydata() for line in right.lines], [[1, 1, 1], [1, 2, 3]])
    assert len({line.get_color() for line in right.lines}) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["rde", "bank"]
    raw = [line.get_ydata() for line in left.lines if line.get_alpha()]
    np.testing.assert_allclose(raw, [[np.nan, 8, 9]] * 2)
    assert growth_curves([run("rde", 0)], log=True).axes[0].get_yscale() == "log"
    for broken, message in (
        ({"memory": "rde", "frame": [1]}, "no series 'ms_per_frame'"),
        ({**run("rde", 0), "frame": [1]}, "equally long"),
        ({**run("rde", 0), "frame": "abc"}, "no series 'frame'"),
    ):
        with pytest.raises(RdejaxError, match=message):
            growth_curves([broken])

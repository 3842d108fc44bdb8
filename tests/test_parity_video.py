"""Nine-frame videos against the published code: all memory modes of RDE-VOS, and STCN.

Measured on CPU, float32, over the twelve runs: probabilities (every fourth pixel both ways) differ
by at most 8.2e-5 and 1.3e-6 on average; at most one of 133 200 mask pixels differs. The published
code differs by 1e-4 from itself when run in float64.
"""

import functools

import numpy as np
import pytest
from helpers_reference import REFERENCE, filled_model, stages

import rdejax

# Mode of the public code -> strategy of the paper's table.
STRATEGIES = {
    "gt": "F",
    "last": "L",
    "two-frames": "2F+L",
    "compress": "RDE",
    "last-compress": "L+RDE",
    "gt-compress": "F+RDE",
    "two-frames-compress": "2F+L+RDE",
}
RUNS = {
    **{mode: ("rde", {"every": 3, "strategy": s}) for mode, s in STRATEGIES.items()},
    "two-frames-compress_every1": ("rde", {"every": 1}),
    "two-frames-compress_every4": ("rde", {"every": 4}),
    "two-frames-compress_1obj": ("rde", {"every": 3}),
    "stm": ("stcn", {"every": 3, "top_k": 40}),
    "stm_top20": ("stcn", {"every": 3, "top_k": 20}),
}
QUICK = ("two-frames-compress", "compress", "stm", "two-frames-compress_1obj")


@functools.cache
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / "rde_videos.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    "run", [run if run in QUICK else pytest.param(run, marks=pytest.mark.slow) for run in RUNS]
)
def test_video_matches_the_published_code(run: str) -> None:
    net, settings = RUNS[run]
    frames, mask = stages()["frames"], stages()["mask"]
    if run.endswith("1obj"):
        mask = (mask > 0).astype(np.uint8)
    model = filled_model(net, **settings)
    probs = rdejax.segment_video(model, frames, mask, return_probs=True)
    expected = reference()[f"{run}/probs_s4"]  # [objects + 1, frames, h, w]
    difference = np.abs(probs[:, :, ::4, ::4].transpose(1, 0, 2, 3) - expected)
    masks = probs.argmax(1)
    wrong = (masks != reference()[f"{run}/argmax"]).mean()
    print(f"{run}: max {difference.max():.1e} mean {difference.mean():.1e} wrong {wrong:.1e}")
    assert difference.max() < 5e-4
    assert difference.mean() < 1e-5
    assert wrong < 1e-4  # the issue asks for 1e-3

"""TMRN with and without its parts: matches of noisy keys, small training runs, time of a read.

python benchmarks/tmrn_ablations.py --root DAVIS

Three tables, each kept in benchmarks/results/tmrn_ablations.json when it is done (`--tables`):

matches: share of positions whose best match is right, on keys with a known permutation;
trained: a small host (rde-lite's networks with a bank) and the same with TMRN in its forms, trained
    on from the same weights on the same synthetic clips with look-alike distractors, with the same
    seed and number of steps; then scored on other such clips and on a data set;
cost: time of reading one frame against the number of frames in memory.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from measure import RESULTS, machine
from rich.console import Console
from rich.table import Table
from sweeps import data, quality

from rdejax.cli import cli_errors
from rdejax.data.config import ClipConfig
from rdejax.data.loader import clip_loader
from rdejax.files import read_json, write_json
from rdejax.memory.protocol import Masks
from rdejax.memory.registry import make_rule
from rdejax.models import System
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.initial_weights import build_model
from rdejax.train.step import init_state, make_predict, make_step, merge
from rdejax.train.validate import validation_sequences

# Name, and settings of the rule; the first line is the host.
FORMS: dict[str, dict[str, Any]] = {
    "host (bank)": {},
    "tmrn": {},
    "no agents": {"agents": "none"},
    "no temporal part": {"temporal": False},
    "softmax profile": {"profile": "softmax"},
    "orthogonal agents": {"agents": "orthogonal"},
    "K = 4": {"K": 4},
    "K = 32": {"K": 32},
}
_Tables = Literal["matches", "trained", "cost"]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What is run; tables that are not named stay as an earlier run left them."""

    root: Path | None = None
    """Top folder of the data set to score on; without it only synthetic clips are scored."""
    tables: tuple[_Tables, ...] = ("matches", "trained", "cost")
    forms: tuple[str, ...] = tuple(FORMS)
    """Lines of the table of trained ones."""
    dataset: str = "davis2016"
    split: str = "val"
    size: int = 240
    """Shorter side of the data set's frames."""
    frames: int = 12
    """At most this many frames of each sequence."""
    steps: int = 40
    batch: int = 2
    clip: int = 96
    """Side of the synthetic clips."""
    seeds: int = 6
    """Draws of noise of the table of matches."""
    output: Path = RESULTS / "tmrn_ablations.json"


# ------------------------------------------------------------------------ matches


def matches(noise: float, settings: dict[str, Any], gamma: float, tau: float, seed: int) -> float:
    """Share of 256 positions that find themselves in a permuted frame; see the tests of TMRN."""
    rng, n, ck = np.random.default_rng(seed), 256, 64
    signal = rng.normal(size=(n, 8)) @ rng.normal(size=(8, ck)) / np.sqrt(8)
    place = rng.permutation(n)
    asked, stored = (
        jnp.asarray((signal + noise * rng.normal(size=(n, ck)))[i].reshape(16, 16, ck), jnp.float32)
        for i in (np.arange(n), place)
    )
    sizes: dict[str, Any] = {"key_channels": ck, "value_channels": 1, "rngs": nnx.Rngs(0)}
    memory: Any = make_rule("tmrn", **sizes, temporal=False, **settings)
    memory.correlation.gamma.set_value(jnp.asarray(gamma))
    memory.correlation.log_tau_a.set_value(jnp.log(tau))
    none = jnp.zeros((1, 256, 256))
    state = memory.init(stored, jnp.zeros((1, 16, 16, 1)), Masks(soft=none, hard=none))
    found = memory.trajectories(state, asked)[0][:, :, 0] @ np.array([16, 1])
    return float((place[np.asarray(found).reshape(-1)] == np.arange(n)).mean())


def match_rows(args: Arguments) -> list[dict[str, Any]]:
    """Match rates by noise: pixels alone, and with agents."""
    forms: list[tuple[str, dict[str, Any], float, float]] = [("pixels alone", {}, 0.0, 1.0)]
    forms += [(f"linear, K = {k}", {"K": k}, 1.0, 1.0) for k in (4, 8, 16, 32)]
    forms += [("softmax, K = 8, tau_a 4, gamma 32", {"K": 8, "profile": "softmax"}, 32.0, 4.0)]
    forms += [("orthogonal, K = 8", {"K": 8, "agents": "orthogonal"}, 1.0, 8.0)]
    return [
        {"form": name}
        | {
            f"noise {noise}": float(
                np.mean([matches(noise, s, gamma, tau, seed) for seed in range(args.seeds)])
            )
            for noise in (0.5, 0.8, 1.0)
        }
        for name, s, gamma, tau in forms
    ]


# ------------------------------------------------------------------------ trained


def run_config(args: Arguments, name: str) -> TrainConfig:
    """The training run of a line; all but the rule is the same."""
    settings = {"top_k": None} if name.startswith("host") else FORMS[name]
    clip = ClipConfig(
        frames=5, size=args.clip, objects=1, perturb=1.0, distractors=2, distractor=1.0,
        lookalike=1.0,
    )  # fmt: skip
    return TrainConfig(
        system="rde-lite",
        init="rde-lite",
        memory="bank" if name.startswith("host") else "tmrn",
        memory_settings=tuple(f"{k}={v}" for k, v in settings.items()),
        objective="unroll",
        data=("synthetic",),
        clip=clip,
        batch=args.batch,
        steps=args.steps,
        loss=LossConfig(soft_iou=1.0, top_p=1.0),
        optimizer=OptimizerConfig(
            lr=1e-4, trunk_lr=0.2, warmup=5, ema=0.0, rule_lr=10.0, rule_lr_steps=args.steps
        ),
    )


def batches(config: TrainConfig, clip: ClipConfig, seed: int, number: int) -> Any:
    """So many batches of synthetic clips."""
    loader = clip_loader(
        config.data, (), clip, batch_size=config.batch, seed=seed, steps=number, threads=1
    )
    for _ in range(number):
        yield jax.tree.map(jnp.asarray, next(loader))


def look_alikes(model: System, config: TrainConfig, state: Any) -> float:
    """J in per cent on other clips, twice as long, with look-alikes that cross the object."""
    clip = dataclasses.replace(config.clip, frames=9)
    predict = make_predict(model, config)
    scores = []
    for batch in batches(config, clip, 1000, 8):
        found, labels = np.asarray(predict(state, batch)), np.asarray(batch.labels[:, 1:])
        for mine, truth in zip(found == 1, labels == 1, strict=True):
            union = (mine | truth).sum((1, 2))
            scores.append(((mine & truth).sum((1, 2)) / np.maximum(union, 1))[union > 0].mean())
    return 100 * float(np.mean(scores))


def trained_row(args: Arguments, name: str) -> dict[str, Any]:
    """Scores of one line before and after its training."""
    config = run_config(args, name)
    model = build_model(config, tell=lambda _: None)
    _, state = init_state(model, config)
    state = jax.tree.map(jnp.copy, state)  # a step takes its state back
    step = make_step(model, config)
    row: dict[str, Any] = {"form": name, "look-alikes before": look_alikes(model, config, state)}
    losses, started = [], time.process_time()
    for batch in batches(config, config.clip, 0, config.steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    row["processor seconds of training"] = round(time.process_time() - started, 1)
    tenth = max(1, len(losses) // 10)
    row["loss first tenth"] = float(np.mean(losses[:tenth]))
    row["loss last tenth"] = float(np.mean(losses[-tenth:]))
    row["look-alikes"] = look_alikes(model, config, state)
    rule = getattr(merge(model, config, state.params, state.fixed), "memory", None)
    if getattr(rule, "correlation", None) is not None:
        row["gamma"] = float(rule.correlation.gamma[...])  # type: ignore[union-attr]
    if getattr(rule, "beta", None) is not None:
        row["beta"] = float(rule.beta[...])  # type: ignore[union-attr]
    if args.root is not None:
        scored = data(args.root, args.size, args.dataset, args.split, args.frames)
        sequences = validation_sequences(scored)
        final = merge(model, config, state.params, state.fixed)
        row |= quality(final, scored, sequences)
    return row


# ------------------------------------------------------------------------ cost


def cost_rows() -> list[dict[str, Any]]:
    """Milliseconds of reading one frame of 480x864, keys of 64 and values of 128 channels."""
    rows = []
    lines: list[tuple[str, str, dict[str, Any]]] = [
        ("bank, full softmax", "bank", {"top_k": None}),
        ("bank, top 40", "bank", {}),
        ("tmrn", "tmrn", {}),
        ("tmrn, no agents", "tmrn", {"agents": "none"}),
        ("tmrn, no temporal part", "tmrn", {"temporal": False}),
    ]
    for name, rule, settings in lines:
        sizes: dict[str, Any] = {"key_channels": 64, "value_channels": 128, "rngs": nnx.Rngs(0)}
        memory = make_rule(rule, **sizes, **settings)
        row: dict[str, Any] = {"form": name}
        for t in (2, 4, 8):
            row[f"T = {t}"] = read_milliseconds(memory, t)
        rows.append(row)
    return rows


def read_milliseconds(memory: Any, frames: int, rounds: int = 3) -> float:
    """Fastest of a few reads."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    none = jnp.zeros((1, 480, 864))
    masks = Masks(soft=none, hard=none)
    state = memory.reserve(memory.init(drawn(30, 54, 64), drawn(1, 30, 54, 128), masks), frames)
    for _ in range(frames - 1):
        state = memory.write(state, drawn(30, 54, 64), drawn(1, 30, 54, 128), masks)
    query, read = drawn(1, 30, 54, 64), jax.jit(lambda s, q: memory.read(s, q)[0])
    read(state, query).block_until_ready()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        read(state, query).block_until_ready()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


# ------------------------------------------------------------------------ tables


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """All numbers of the rows."""
    columns = [k for k in dict.fromkeys(k for row in rows for k in row) if k != "sequences"]
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "form" else "right")
    for row in rows:
        cells = [row.get(c, "") for c in columns]
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells))
    Console(width=160).print(table)


def main() -> None:
    """Runs the tables and keeps each line as soon as it is there."""
    args = tyro.cli(Arguments)
    with cli_errors():
        settings = dataclasses.asdict(args) | {"root": args.root and args.root.name}
        settings |= {"output": args.output.name}

        def keep(table: str, rows: list[dict[str, Any]]) -> None:
            result = read_json(args.output) or {}  # another run may have left other tables
            result[table] = {"machine": machine(), "arguments": settings, "rows": rows}
            write_json(args.output, result)

        if "matches" in args.tables:
            keep("matches", match_rows(args))
        if "trained" in args.tables:
            rows: list[dict[str, Any]] = []
            for name in args.forms:
                rows.append(trained_row(args, name))
                print(rows[-1], flush=True)
                jax.clear_caches()
                keep("trained", rows)
        if "cost" in args.tables:
            keep("cost", cost_rows())
        for name in args.tables:
            print_table(name, (read_json(args.output) or {})[name]["rows"])


if __name__ == "__main__":
    main()

"""What a run is about to do, in a few lines for the terminal."""

from pathlib import Path
from typing import Any

import jax

from rdejax.data.loader import sizes
from rdejax.data.sources.spec import Source
from rdejax.data.sources.videos import VideoSource
from rdejax.data.synthetic.procedural import ProceduralImages
from rdejax.models import System
from rdejax.train.config import TrainConfig
from rdejax.train.step import TrainState
from rdejax.train.system import objective_of


def plan_lines(
    config: TrainConfig, model: System, state: TrainState, sources: list[Source], workdir: Path
) -> list[str]:
    """Parameters, batch, devices, steps, sources and places of a run."""
    return [
        f"{model.name}: {_parameters(state)}",
        _batch(config),
        _steps(config),
        f"objective {_objective(config)}",
        *objective_of(config).notes(model),
        *_sources(config, sources),
        *_validation(config),
        f"writing to {workdir}: log.jsonl, tensorboard/, checkpoints/, weights.safetensors",
    ]


def _sources(config: TrainConfig, sources: list[Source]) -> list[str]:
    """One line a source: its share of the clips, what it holds, its name."""
    weights = [*config.data_weights] or sizes(sources)
    return [
        f"  {weight / sum(weights):6.1%}  {name}: {_contents(source)}"
        for name, source, weight in zip(config.data, sources, weights, strict=True)
    ]


def _contents(source: Source) -> str:
    if isinstance(source, ProceduralImages):
        return "any number of images"
    return f"{len(source)} {'sequences' if isinstance(source, VideoSource) else 'images'}"


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _parameters(state: TrainState) -> str:
    trained, frozen = _size(state.params), _size(state.fixed)
    return f"{trained + frozen:,} parameters, {trained:,} trained and {frozen:,} frozen"


def _batch(config: TrainConfig) -> str:
    devices, parts = jax.device_count(), config.scale.accumulate
    each = config.batch // (devices * parts)
    how = [config.scale.precision]
    how += ["parameters sharded"] * config.scale.fsdp + ["remat"] * config.scale.remat
    return (
        f"batch {config.batch} = {each} per device x {devices} devices x {parts} accumulated; "
        f"{devices} x {jax.devices()[0].device_kind} in {jax.process_count()} processes; "
        f"{', '.join(how)}"
    )


def _objective(config: TrainConfig) -> str:
    objective = objective_of(config)
    settings = [f"{name}={value}" for name, value in vars(objective).items()]
    return f"{objective.name} ({', '.join(settings)})"


def _steps(config: TrainConfig) -> str:
    clip = config.clip
    return (
        f"{config.steps} steps of clips of {clip.frames} frames, {clip.size} x {clip.size}, "
        f"{clip.objects} objects; a checkpoint every {config.save_every}, the last {config.keep} "
        "are kept"
    )


def _validation(config: TrainConfig) -> list[str]:
    v = config.validate
    if not v.every:
        return []
    sets = ", ".join([f"{v.dataset} {v.split} in {v.root}", *v.also])
    return [f"validation every {v.every} steps on {sets}; best is kept"]

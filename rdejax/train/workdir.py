"""The folder of a run: what may go on in it, and what is written there beside the checkpoints."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import rdejax
from rdejax.errors import RdejaxError
from rdejax.files import read_json, write_json
from rdejax.folders import sweep
from rdejax.memory.registry import find_rule
from rdejax.models.registry import find_system
from rdejax.train.checkpoints import Checkpoints
from rdejax.train.config import TrainConfig
from rdejax.train.objectives.rde import RDEObjective
from rdejax.train.system import objective_of

# What a run writes beside its checkpoints and what its loggers write.
_WRITTEN = ("config.json", "environment.json", "log.jsonl") + tuple(
    f"{name}.safetensors" for name in ("latest", "best", "weights")
)
# What changes neither the parameters nor the schedule, or does so by rounding only. `init` and
# `trunk` count at step 0 only; `data` is compared by the number of its sources, which may move.
_HARMLESS = (
    "log_every",
    "save_every",
    "keep",
    "images_every",
    "logger",
    "profile",
    "threads",
    "workers",
    "skip_bad",
    "init",
    "trunk",
    "validate.",
    "scale.fsdp",
    "scale.accumulate",
    "scale.remat",
    "scale.distributed",
    "scale.coordinator",
    "scale.process",
    "scale.devices",
)


def begin(
    workdir: Path, config: TrainConfig, checkpoints: Checkpoints, *, resume: bool
) -> tuple[int, list[str]]:
    """Step to begin with, by the rules of a work folder; changes nothing.

    A folder without a checkpoint is free unless it holds files that this run would replace. One
    with a checkpoint goes on if `resume` says so and the configurations agree; fields that do not
    change what is learned may differ.

    Returns:
      0 or the step of the last checkpoint, and what is worth telling.

    Raises:
      RdejaxError: a folder with a checkpoint without `resume`, or of another configuration; or one
        with weights or with files of others of the names that a run gives its own.
    """
    last = checkpoints.latest
    if last is None:
        _refuse_files_of_others(workdir)
        return 0, ["nothing to resume yet: starting from step 0"] if resume else []
    if not resume:
        raise RdejaxError(
            f"{workdir}: holds a run of {last} steps; add --resume to continue it, or choose "
            "another --workdir"
        )
    begun = checkpoints.record(last)["config"]
    differing = differences(begun, as_json(config)) | _former_objective(begun, config)
    serious = [text for name, text in differing.items() if not _is_harmless(name)]
    if serious:
        raise RdejaxError(
            f"{workdir}: was begun with another configuration ({'; '.join(serious)}); give the "
            "same to continue it, or choose another --workdir"
        )
    notes = [f"changed since the last start: {'; '.join(differing.values())}"] if differing else []
    return last, [f"continuing from step {last}", *notes]


def _refuse_files_of_others(workdir: Path) -> None:
    """Only what a run left that was killed before its first checkpoint may be replaced."""
    begun = _read_object(workdir / "config.json")
    strange = ["weights.safetensors"]
    if not (begun and {"system", "save_every"} <= begun.keys()):
        strange += ["config.json", "environment.json", "log.jsonl", "latest.safetensors"]
    for name in strange:
        if (workdir / name).exists():
            raise RdejaxError(
                f"{workdir / name}: would be replaced, but there is no checkpoint of a run that "
                "wrote it; move it away, or choose another --workdir"
            )


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except (RdejaxError, OSError):
        return None


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Fields whose values differ, by dotted name, each with a text "name: old -> new".

    Fields that only one of the two has are left out: versions differ in them.
    """
    found: dict[str, str] = {}
    for name in old.keys() & new.keys():
        a, b = old[name], new[name]
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found[prefix + name] = f"{prefix}{name}: {_short(a)} -> {_short(b)}"
            if name == "data" and not prefix and len(a) != len(b):
                found["data (number)"] = found.pop("data")
    return dict(sorted(found.items()))


def _former_objective(begun: dict[str, Any], config: TrainConfig) -> dict[str, str]:
    """As `differences`, for a run of the version in which the loss said how a clip is run."""
    loss = begun.get("loss", {})
    if "pattern" not in loss:
        return {}
    now, patterns = objective_of(config), {"alternate": "alternate", "bank": "stm"}
    if isinstance(now, RDEObjective):
        old = {**loss, "patterns": patterns.get(loss["pattern"])}
        same = all(old[name] == value for name, value in vars(now).items())
    else:
        # Systems that keep every frame read the bank that stood for their memory.
        rule = find_rule(config.memory or find_system(config.system).default_settings.memory)
        reads = ("memory", "bank") if rule.keeps_frames else ("memory",)
        plain = loss["convention"] == "paper" and not loss["consistency"]
        same = now.name == "unroll" and loss["pattern"] in reads and plain
    names = ("pattern", "convention", "guidance", "consistency")
    former = ", ".join(f"loss.{name}={loss[name]}" for name in names)
    return {} if same else {"objective": f"{former} -> {now}"}


def measures_differently(old: dict[str, Any], config: TrainConfig) -> bool:
    """Whether validation scores of a run's earlier part cannot be compared with those to come."""
    changed = differences(old.get("validate", {}), as_json(config)["validate"])
    return bool(changed.keys() - {"every"})


def as_json(config: TrainConfig) -> dict[str, Any]:
    """A configuration as it is after a round trip through JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def record_start(workdir: Path, config: TrainConfig, first: int) -> None:
    """Writes `config.json` and `environment.json`; cuts the log off after step `first`.

    A killed run has logged steps after its last checkpoint. Weights of an earlier run that got to
    no checkpoint are none of this one. What it was writing is swept.
    """
    sweep(workdir, _WRITTEN)
    if first == 0:
        (workdir / "latest.safetensors").unlink(missing_ok=True)
    write_json(workdir / "config.json", as_json(config))
    write_json(workdir / "environment.json", environment())
    log = workdir / "log.jsonl"
    if log.is_file():
        lines = log.read_text("utf-8", "replace").splitlines()
        temporary = log.with_suffix(".partial")
        temporary.write_text(
            "".join(f"{line}\n" for line in lines if _logged_by(line, first)), "utf-8"
        )
        os.replace(temporary, log)


def environment() -> dict[str, Any]:
    """Versions, devices and command of this process."""
    devices = jax.devices()
    return {
        "rdejax": rdejax.__version__,
        "commit": _commit(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    # Of a checkout; an installed package has none, and may lie in someone else's.
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _logged_by(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False  # half a line, from a kill while it was written


def _is_harmless(name: str) -> bool:
    return name == "data" or name.startswith(_HARMLESS)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

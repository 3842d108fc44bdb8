"""Weights of a training run that has exported none: read from its checkpoints.

Runs write `latest.safetensors` with every checkpoint; those from before that have checkpoints only.
This needs neither the training code nor the devices that the run was spread over.
"""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rdejax.cli import name_and_value, note
from rdejax.errors import RdejaxError, first_line
from rdejax.memory.registry import require_asked
from rdejax.models.checksum import CHECKSUMS, changed
from rdejax.models.registry import find_system
from rdejax.models.weights import StoredModel


def read_workdir(folder: Path, memory: str | None = None) -> StoredModel:
    """The averaged weights of a run's last checkpoint, finished or not.

    The last and not the best one: asked while a run goes on, it shows where the run is. The best by
    validation is `best.safetensors` in the same folder.

    Args:
      folder: what `rdejax train` was given as --workdir.
      memory: the memory rule to use; the run's own unless given.

    Raises:
      RdejaxError: not such a folder, no checkpoint in it yet, one that cannot be read, or a memory
        rule in a Python file that only the folder names.
    """
    folder = folder.absolute()
    run = _read_run(folder)
    arrays = read_averaged(folder)
    rule, sizes = (_named(folder, run, name) for name in ("memory_settings", "sizes"))
    settings = find_system(run["system"]).default_settings
    trained_with = run.get("memory") or settings.memory
    require_asked(trained_with, memory, str(folder))
    if memory in (None, trained_with):
        settings = settings.override(memory=trained_with, **rule)
    else:
        # Nothing is looked up of the rule that is left out; `build` keeps what the other shares.
        rule = {**dict(settings.memory_settings), **rule}
        settings = dataclasses.replace(
            settings, memory=trained_with, memory_settings=tuple(sorted(rule.items()))
        )
    return StoredModel(
        system=run["system"],
        config={**sizes, **({"single_object": True} if run.get("single_object") else {})},
        settings=settings,
        arrays=arrays,
        source=str(folder),
    )


def read_averaged(folder: Path) -> dict[str, np.ndarray]:
    """Averaged and fixed weights of a run's last checkpoint, by path.

    Args:
      folder: what `rdejax train` was given as --workdir.

    Raises:
      RdejaxError: not such a folder, no checkpoint in it yet, or one that cannot be read.
    """
    folder = folder.absolute()
    run = _read_run(folder)
    arrays = _last_averaged(folder / "checkpoints")
    if arrays is None:
        raise RdejaxError(
            f"{folder}: no checkpoint yet; one is made every {run['save_every']} steps"
        )
    return arrays


def _named(folder: Path, run: dict[str, Any], field: str) -> dict[str, Any]:
    """Names and values of the NAME=VALUE of a field; older runs may lack it."""
    texts = run.get(field) or ()
    return dict(name_and_value(text, f"{folder}: {field} {text!r}") for text in texts)


def _read_run(folder: Path) -> dict[str, Any]:
    """The configuration of a run, as far as it is needed here."""
    try:
        run = json.loads((folder / "config.json").read_text("utf-8"))
        kinds = {"system": str, "save_every": int, "memory": (str, type(None))}
        for name, kind in kinds.items():
            if not isinstance(run[name] if name != "memory" else run.get(name), kind):
                raise TypeError(f"config.json: {name} is {run[name]!r}")
        for name in ("memory_settings", "sizes"):
            texts = run.get(name) or ()
            if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
                raise TypeError(f"config.json: {name} is {texts!r}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RdejaxError(
            f"{folder}: not the work folder of a training run ({error}); give the --workdir of "
            "rdejax train or a .safetensors file"
        ) from None
    return run


def _last_averaged(folder: Path) -> dict[str, np.ndarray] | None:
    """Averaged and fixed weights by path; None without a checkpoint."""
    if not folder.is_dir():
        return None
    # Imported here: it takes a second, and bundled weights need none of it.
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    steps = ocp.utils.checkpoint_steps(folder)  # without those that a kill left half written
    if not steps:
        return None
    for step in sorted(steps, reverse=True):
        state = _read_averaged(folder / str(step))
        if state is not None:
            return _by_path(state["fixed"]) | _by_path(state["ema"])
        note(f"{folder / str(step)}: this checkpoint is damaged; reading the one before it")
    raise RdejaxError(f"{folder}: its checkpoints are damaged; train again or give other weights")


def _read_averaged(place: Path) -> dict[str, Any] | None:
    """Averaged and fixed weights of a checkpoint; None if they are not those that were saved."""
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.metadata(place / "state").item_metadata.tree
            # Not the optimiser, which is twice as large.
            wanted = {name: saved[name] for name in ("fixed", "ema")}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
            state = checkpointer.restore(place / "state", args=args)
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            noted = checkpointer.restore(place / "record").get(CHECKSUMS, {})
    except Exception as error:  # a damaged file makes Orbax and its readers raise many kinds
        text = first_line(error, 200)
        raise RdejaxError(
            f"{place}: this checkpoint cannot be read ({text}); it is damaged or of another "
            "version: remove it to read the one before"
        ) from error
    return None if changed(noted, state) else state


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}

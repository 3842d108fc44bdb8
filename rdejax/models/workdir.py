"""Weights of a training run that has exported none: read from its checkpoints.

Runs write `latest.safetensors` with every checkpoint; those from before that have checkpoints only.
This needs neither the training code nor the devices that the run was spread over.
"""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rdejax.cli import name_and_value
from rdejax.errors import RdejaxError
from rdejax.models.registry import find_system
from rdejax.models.weights import StoredModel


def read_workdir(folder: Path) -> StoredModel:
    """The averaged weights of a run's last checkpoint, finished or not.

    The last and not the best one: asked while a run goes on, it shows where the run is. The best by
    validation is `best.safetensors` in the same folder.

    Args:
      folder: what `train.py` was given as --workdir.

    Raises:
      RdejaxError: not such a folder, no checkpoint in it yet, or one that cannot be read.
    """
    folder = folder.absolute()
    try:
        run = json.loads((folder / "config.json").read_text())
        system, every = run["system"], run["save_every"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RdejaxError(
            f"{folder}: not the work folder of a training run ({error}); give the --workdir of "
            "train.py or a .safetensors file"
        ) from None
    arrays = _last_averaged(folder / "checkpoints")
    if arrays is None:
        raise RdejaxError(f"{folder}: no checkpoint yet; one is made every {every} steps")
    changes = {} if run.get("memory") is None else {"memory": run["memory"]}
    changes |= dict(
        name_and_value(text, f"{folder}: memory_settings {text!r}")
        for text in run.get("memory_settings", ())
    )
    return StoredModel(
        system=system,
        config={"single_object": True} if run.get("single_object") else {},
        settings=find_system(system).default_settings.override(**changes),
        arrays=arrays,
        source=str(folder),
    )


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
    place = folder / str(max(steps))
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.metadata(place / "state").item_metadata.tree
            # Not the optimiser, which is twice as large.
            wanted = {name: saved[name] for name in ("fixed", "ema")}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
            state = checkpointer.restore(place / "state", args=args)
    except Exception as error:  # a damaged file makes Orbax and its readers raise many kinds
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RdejaxError(
            f"{place}: this checkpoint cannot be read ({text}); it is damaged or of another "
            "version: remove it to read the one before"
        ) from error
    return _by_path(state["fixed"]) | _by_path(state["ema"])


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}

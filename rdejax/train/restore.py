"""A model from the checkpoints of a training run."""

import json
from pathlib import Path

import orbax.checkpoint as ocp

from rdejax.errors import RdejaxError
from rdejax.models import System, create
from rdejax.train.config import config_from_dict
from rdejax.train.step import init_state, merge


def load_run(workdir: Path) -> System:
    """The averaged weights of a run's last checkpoint, finished or not.

    Args:
      workdir: what `train.py` was given as --workdir.

    Raises:
      RdejaxError: not such a folder, no checkpoint in it yet, or one of another version.
    """
    workdir = Path(workdir).absolute()
    try:
        config = config_from_dict(json.loads((workdir / "config.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RdejaxError(
            f"{workdir}: not the work folder of a training run ({error}); give the --workdir of "
            "train.py or a .safetensors file"
        ) from None
    model = create(config.system, seed=config.seed)
    _, state = init_state(model, config)
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        step = manager.latest_step()
        if step is None:
            raise RdejaxError(
                f"{workdir}: no checkpoint yet; one is made every {config.save_every} steps"
            )
        state = manager.restore(step, args=ocp.args.StandardRestore(state))
    return merge(model, config, state.ema, state.fixed)

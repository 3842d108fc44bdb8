"""A model from the checkpoints of a training run."""

import json
from pathlib import Path

import jax

from rdejax.errors import RdejaxError
from rdejax.models import System
from rdejax.train.checkpoints import Checkpoints, abstract
from rdejax.train.config import TrainConfig, config_from_dict
from rdejax.train.step import init_state, merge
from rdejax.train.system import create_system


def load_run(workdir: Path) -> System:
    """The averaged weights of a run's last checkpoint, finished or not.

    The last and not the best one: asked while a run goes on, it shows where the run is. The best by
    validation is `best.safetensors` in the same folder.

    Args:
      workdir: what `train.py` was given as --workdir.

    Raises:
      RdejaxError: not such a folder, no checkpoint in it yet, or one of another version.
    """
    workdir = Path(workdir).absolute()
    config = read_config(workdir)
    if not (workdir / "checkpoints").is_dir():
        raise _none_yet(workdir, config)
    model = create_system(config)
    shapes = jax.eval_shape(lambda: init_state(model, config)[1])
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {"ema": abstract(shapes.ema, here), "fixed": abstract(shapes.fixed, here)}
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise _none_yet(workdir, config)
        # Not the optimiser, which is twice as large, nor the devices the run was spread over.
        state = checkpoints.restore_some(checkpoints.latest, wanted)
    return merge(model, config, state["ema"], state["fixed"])


def read_config(workdir: Path) -> TrainConfig:
    """The configuration of a run.

    Raises:
      RdejaxError: not the work folder of one.
    """
    try:
        return config_from_dict(json.loads((workdir / "config.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RdejaxError(
            f"{workdir}: not the work folder of a training run ({error}); give the --workdir of "
            "train.py or a .safetensors file"
        ) from None


def _none_yet(workdir: Path, config: TrainConfig) -> RdejaxError:
    return RdejaxError(f"{workdir}: no checkpoint yet; one is made every {config.save_every} steps")

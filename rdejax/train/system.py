"""The system and the objective that a configuration names."""

import json
from typing import Any

from rdejax.cli import name_and_value
from rdejax.errors import RdejaxError
from rdejax.models import System, create
from rdejax.models.registry import find_system
from rdejax.models.weights import find_weights, read_weights
from rdejax.train.config import TrainConfig
from rdejax.train.objectives.protocol import Objective, make_objective
from rdejax.train.objectives.registry import find_objective


def create_system(config: TrainConfig) -> System:
    """The system of a run, with random weights from `config.seed`.

    Its networks have the sizes of those of `config.init`, if these are weights of the same system,
    but for what `config.sizes` says.

    Raises:
      RdejaxError: an unknown system, memory rule or objective, or a choice the system does not
        have.
    """
    system = find_system(config.system)
    if config.single_object and not hasattr(system.Config, "single_object"):
        raise RdejaxError(
            f"single_object: the value encoder of {config.system} always sees the other objects; "
            "leave it False and set clip.objects to 1"
        )
    sizes = {**_sizes_of_start(config), **_settings("sizes", config.sizes)}
    if config.single_object:
        sizes["single_object"] = True
    changes: dict[str, Any] = {} if config.memory is None else {"memory": config.memory}
    changes |= _settings("memory_settings", config.memory_settings)
    model = create(config.system, seed=config.seed, config=sizes, **changes)
    objective_of(config).check(model, config.clip.frames)
    return model


def _sizes_of_start(config: TrainConfig) -> dict[str, Any]:
    """Sizes that the weights of `init` say; none where there are no such weights (any more)."""
    if config.init is None:
        return {}
    try:
        metadata = read_weights(find_weights(config.init))[1]
        sizes = json.loads(metadata["config"])
    except (RdejaxError, KeyError, ValueError):
        return {}
    if metadata.get("arch") != config.system or not isinstance(sizes, dict):
        return {}
    # Whether there is one object is the stage's, see `rdejax.train.initial_weights.fill`.
    return {name: value for name, value in sizes.items() if name != "single_object"}


def objective_of(config: TrainConfig) -> Objective:
    """The objective of a run.

    Raises:
      RdejaxError: an unknown one, or a setting it does not have.
    """
    name = config.objective or find_system(config.system).objective
    settings = _settings("objective_settings", config.objective_settings)
    return make_objective(find_objective(name), settings)


def _settings(field: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Names and values of the NAME=VALUE of a field.

    Raises:
      RdejaxError: one is not NAME=VALUE.
    """
    return dict(name_and_value(text, f"{field} {text!r}") for text in texts)

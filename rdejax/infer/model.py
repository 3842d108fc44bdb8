"""The model of a run: loaded by the options of the command line, and what is noted of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdejax.errors import RdejaxError
from rdejax.infer.cli import ModelOptions
from rdejax.infer.video import Segmenter
from rdejax.io.masks import IdMask


def load(options: ModelOptions, dataset: str | None = None) -> Any:
    """Loads the model with the settings of the command line, the data set and the defaults.

    What is given on the command line wins, then the preset it names, then what the weights carry if
    that is not the system's default, then what the system's authors published for the data set.

    Raises:
      RdejaxError: see `rdejax.load_model`; or a preset that the system does not have.
    """
    import rdejax
    from rdejax.memory.registry import rule_settings
    from rdejax.models.registry import resettled
    from rdejax.propagate.geometry import DEFAULT_SIZE

    given = options.overrides
    model = rdejax.load_model(options.checkpoint, **given)
    more: dict[str, Any] = {}
    if model.settings.size is None and "size" not in given:
        more["size"] = DEFAULT_SIZE
    known = {"every", *rule_settings(model.settings.memory)}
    carried, usual = (_flat(settings) for settings in (model.settings, model.default_settings))
    if options.preset is not None and options.preset not in model.published:
        have = ", ".join(model.published) or "none"
        raise RdejaxError(
            f"--preset {options.preset}: model {model.name!r} has no preset of that name; of its "
            f"authors are: {have}"
        )
    for name, value in model.published.get(options.preset or dataset or "", {}).items():
        if name in known and (options.preset or carried.get(name) == usual.get(name)):
            more[name] = value
    more = {name: value for name, value in more.items() if name not in given}
    return resettled(model, **more) if more else model


def _flat(settings: Any) -> dict[str, Any]:
    return {"every": settings.every, **dict(settings.memory_settings)}


def make_stream(
    model: Any, masks: Mapping[int, IdMask], chunk: int | None, **options: Any
) -> Segmenter:
    """A stream for masks that are all known."""
    import rdejax
    from rdejax.propagate.slots import known_layout

    return rdejax.stream(model, layout=known_layout(masks), chunk=chunk, **options)


def frames_at_once(model: Any, chunk: int | None, size: tuple[int, int]) -> int:
    """Frames that are handed to the stream at once."""
    from rdejax.propagate.geometry import Geometry
    from rdejax.propagate.schedule import frames_per_call

    settings = model.settings
    inner = Geometry.under(settings, size, settings.size).inner
    return frames_per_call(chunk, settings.every, size, inner)


def describe(options: ModelOptions, model: Any) -> dict[str, Any]:
    """What decides the result, on the model's side."""
    settings = model.settings.as_dict()
    described = {"checkpoint": _identify(options.checkpoint), "settings": settings}
    if settings["memory"].endswith(".py"):
        described["memory_file"] = _identify(settings["memory"])
    return described


def _identify(name_or_path: str) -> str:
    """A name as it is; a file or folder with a digest, so that a changed one is noticed."""
    path = Path(name_or_path)
    if not path.exists():
        return name_or_path
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(str(file.relative_to(path.parent)).encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"{path.name} {digest.hexdigest()[:16]}"


def environment(options: ModelOptions, model: Any) -> dict[str, Any]:
    """What a summary notes of the model and where it ran."""
    import jax
    from flax import nnx

    import rdejax
    from rdejax.models.weights import bundled

    # Names of bundled weights stay when the weights of a new version differ.
    weights = bundled().get(options.checkpoint)
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    return {
        "model": model.name,
        **({"weights": _identify(str(weights))} if weights else {}),
        "parameters": sum(leaf.size for leaf in parameters),
        "settings": model.settings.as_dict(),
        "version": rdejax.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }

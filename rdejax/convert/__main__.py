"""Command line: `rdejax convert CHECKPOINT.pth --output DEST [--arch ARCH]`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.cli import cli_errors
from rdejax.errors import RdejaxError
from rdejax.options import parse_options


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Converts a public PyTorch checkpoint to this library's weights. PyTorch is not needed.

    The file may be a bare state dict or a training checkpoint that holds one. No code in it is run.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT.pth")]
    """File that torch.save wrote."""
    output: Annotated[Path, tyro.conf.arg(metavar="DEST")]
    """A .safetensors file, or a folder, which gets weights.safetensors. Either is a path for
    rdejax.load_model and rdejax infer --checkpoint."""
    arch: Annotated[str | None, tyro.conf.arg(metavar="rde|stcn|swem|xmem|stm")] = None
    """Architecture; told by the parameter names unless given."""
    half: bool = False
    """Store float16: half the size, relative error up to 5e-4."""
    single_object: bool = False
    """Keep a single-object value encoder (4 input channels) instead of widening it to several
    objects with zeros; for training on from it."""


def _destination(output: Path) -> Path:
    if output.suffix in (".pth", ".pt", ".pkl", ".tar", ".npz"):
        raise RdejaxError(f"{output}: name the output .safetensors, or give a folder")
    if output.suffix == ".safetensors":
        if output.is_dir():
            raise RdejaxError(f"{output}: is a folder; give another name")
        return _not_trained(output)
    if output.exists() and not output.is_dir():
        raise RdejaxError(f"{output}: is a file of another kind; name the output .safetensors")
    return _not_trained(output / "weights.safetensors")


def _not_trained(path: Path) -> Path:
    """The path, unless there are weights that no conversion made.

    Raises:
      RdejaxError: there are.
    """
    if not path.exists():
        return path
    from rdejax.models.weights import read_weights

    try:
        converted = "converted_from" in json.loads(read_weights(path)[1].get("extra", "{}"))
    except (RdejaxError, ValueError, RecursionError, TypeError):
        converted = False
    if not converted:
        raise RdejaxError(
            f"{path}: exists and is not what rdejax convert wrote; choose another --output"
        )
    return path


def run(args: Arguments) -> None:
    """Converts and prints what came of it.

    Raises:
      RdejaxError: see `rdejax.convert.convert_file`; or an impossible destination.
    """
    # Imported here, so that --help answers at once.
    from rdejax.convert.archs import find_arch
    from rdejax.convert.build import convert_state_dict
    from rdejax.convert.torch_pickle import load_state_dict
    from rdejax.models.weights import save_weights, weights_of

    dest = _destination(args.output)
    if args.arch is not None:
        find_arch(args.arch)
    state_dict = load_state_dict(args.checkpoint)
    model = convert_state_dict(
        state_dict,
        arch=args.arch,
        source=str(args.checkpoint),
        keep_single_object=args.single_object,
    )
    save_weights(dest, model, half=args.half, converted_from=args.checkpoint.name)
    count = sum(array.size for array in weights_of(model).values())
    size = dest.stat().st_size / 2**20
    kind = "float16" if args.half else "float32"
    sizes = ", ".join(f"{name}={value}" for name, value in vars(model.config).items())
    print(f"architecture  {model.name} ({sizes})")
    print(f"weights       {count:,} numbers, {kind}, with batch norm statistics")
    print(f"wrote         {dest} ({size:.1f} MiB)")


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default) and converts."""
    with cli_errors():
        run(parse_options(Arguments, args=argv, config=(tyro.conf.FlagCreatePairsOff,)))


if __name__ == "__main__":
    main()

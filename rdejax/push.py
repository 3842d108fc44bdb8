"""Command line: `rdejax push WEIGHTS hf://OWNER/NAME --license ID`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from rdejax.cli import cli_errors
from rdejax.options import parse_options


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Puts weights and a model card on the Hugging Face Hub, in one commit.

    Needs rdejax[hub] and a login (hf auth login, or HF_TOKEN). Whoever has the right to read the
    model loads it as rdejax.load_model("hf://OWNER/NAME") or --checkpoint hf://OWNER/NAME.
    """

    weights: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS")]
    """A .safetensors file, the folder of a training run, or the name of bundled weights."""
    address: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="hf://OWNER/NAME")]
    """The model; it is made if it is not there."""
    license: Annotated[str, tyro.conf.arg(metavar="ID")]
    """Licence of the weights as the hub calls it: apache-2.0, cc-by-nc-4.0, other. Converted
    weights carry the licence of their authors."""
    private: bool = False
    """Make a new model private."""
    card: Annotated[Path | None, tyro.conf.arg(metavar="FILE.md")] = None
    """Text of the model card; written from the weights unless given."""
    message: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Message of the commit."""


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default) and pushes."""
    with cli_errors():
        args = parse_options(Arguments, args=argv, config=(tyro.conf.FlagCreatePairsOff,))
        from rdejax.hub import push

        page = push(
            args.weights,
            args.address,
            license=args.license,
            private=args.private,
            card=args.card,
            message=args.message,
        )
        print(f"pushed {page}")


if __name__ == "__main__":
    main()

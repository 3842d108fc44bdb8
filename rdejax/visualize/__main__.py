"""Command line: `rdejax visualize COMMAND ...`."""

from typing import Annotated

import tyro

from rdejax.cli import cli_errors
from rdejax.options import parse_options
from rdejax.visualize.commands import Growth, Overlay, Sheet, Strip, Times
from rdejax.visualize.commands_memory import BasesPicture, Pca, Relevance
from rdejax.visualize.commands_views import ViewPicture

_DESCRIPTION = """Pictures for papers, one file per command; docs/pictures.md shows them all.

Masks for overlay, sheet and strip come from rdejax infer."""

_Bases = Annotated[BasesPicture, tyro.conf.subcommand("bases")]
_View = Annotated[ViewPicture, tyro.conf.subcommand("view")]
Command = Overlay | Sheet | Strip | Pca | Relevance | _Bases | _View | Times | Growth


def main(argv: list[str] | None = None) -> None:
    """Parses `argv` (the process's own by default) and writes the picture."""
    with cli_errors():
        command: Command = parse_options(Command, args=argv, description=_DESCRIPTION)
        command.run()
        print(f"wrote {command.output}")


if __name__ == "__main__":
    main()

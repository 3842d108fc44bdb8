"""Command line: `rdejax visualize COMMAND ...`."""

from typing import Annotated

import tyro

from rdejax.cli import cli_errors, program
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
    command: Command = tyro.cli(
        Command,  # type: ignore[arg-type]
        args=argv,
        prog=program(),
        description=_DESCRIPTION,
    )
    with cli_errors():
        command.run()
        print(f"wrote {command.output}")


if __name__ == "__main__":
    main()

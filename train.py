"""Trains a system by a recipe; see `--help`."""

from rdejax.cli import cli_errors

if __name__ == "__main__":
    with cli_errors():  # Ctrl-C while this is imported is told in a sentence, too
        from rdejax.train.__main__ import main

        main()

"""Segments the objects of a video from their masks in its first frame; see `--help`."""

from rdejax.cli import cli_errors

if __name__ == "__main__":
    with cli_errors():  # Ctrl-C while this is imported is told in a sentence, too
        from rdejax.infer.__main__ import main

        main()

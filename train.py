"""Trains a system by a recipe; see `--help`."""

from rdejax.train.__main__ import main

if __name__ == "__main__":
    main()

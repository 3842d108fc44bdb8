"""Segments the objects of a video from their masks in its first frame; see `--help`."""

from rdejax.infer.__main__ import main

if __name__ == "__main__":
    main()

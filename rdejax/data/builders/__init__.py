"""Data sets in TFDS's format from any source: a few large files in place of millions."""

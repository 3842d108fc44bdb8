"""Data sets on disk: images and videos with masks."""

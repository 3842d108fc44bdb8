"""Clips of images and videos, moved and augmented."""

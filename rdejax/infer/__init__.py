"""The whole inference program: files in, masks and overlay out."""

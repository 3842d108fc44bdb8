"""Video files, frame folders, masks and overlays: everything between the disk and the arrays.

Reading order: `datasets` (where frames and masks lie), `video` (frames in), `palette` and `masks`
(ids in and out), `given` (masks that start objects), `overlay` (pictures for people), `threads`
(that overlap disk and compute).
"""

"""Video files, frame folders, masks and overlays: everything between the disk and the arrays.

Reading order: `video` (frames in), `palette` and `masks` (masks in and out), `overlay` (pictures
for people), `pipeline` (threads that overlap disk and compute), `outputs` (whole or unfinished
results), `segment` (a video through a stream into a result folder), `benchmark` (a data set
likewise), `jobs` (what `infer.py` does with its arguments).
"""

"""RDE-VOS in plain PyTorch, written from the equations: what this library's speed is held against.

`networks` are the layers under the names that this library's weights files use, `video` is the
loop over frames, `worker` runs both in a process of their own. `benchmarks/side_by_side.py` holds
them against this library.
"""

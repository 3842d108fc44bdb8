"""RDE-VOS, STCN, SWEM and XMem in plain PyTorch, written from the equations.

What this library's speed is held against. `networks` are the layers that they share, under the
names that this library's weights files use; `memory`, `swem` and `xmem` what is each system's own,
`video` the loop over frames, `training` the training step of RDE-VOS. `worker` and `train_worker`
run them in a process of their own. `benchmarks/side_by_side.py` and `benchmarks/train_step.py` hold
them against this library.
"""

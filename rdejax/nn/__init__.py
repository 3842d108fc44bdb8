"""Layers and networks: Flax NNX modules, pure at call time, with no notion of time."""

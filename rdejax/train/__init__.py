"""Training: losses, the clip step, the loop and its checkpoints."""

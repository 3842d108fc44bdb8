"""What a training clip is scored on: how it is unrolled, and the losses that belong to that."""

"""Training steps in a process of their own: `python -m peer.train_worker JSON`, one for each line.

It prints one line of JSON when it is ready, and one for each step: its loss, seconds, cores in use
and the process's largest size so far.
"""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch

from peer.networks import load_weights
from peer.systems import networks
from peer.training import Loss, Training


def main() -> None:
    """Loads, answers."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    model: Any = networks(job)
    load_weights(model, job["weights"])
    model = model.eval().to(job["device"], memory_format=torch.channels_last)
    run = Training(model, Loss(**job["loss"]), job["rate"], job["decay"])
    with np.load(job["batch"]) as batch:
        clips = {name: torch.from_numpy(batch[name]).to(job["device"]) for name in batch}
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        busy, begun = time.process_time(), time.perf_counter()
        loss = run.step(clips)
        seconds = time.perf_counter() - begun
        answer = {
            "loss": loss,
            "seconds": seconds,
            "cores": (time.process_time() - busy) / seconds,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""The peer in a process of its own: `python -m peer.worker JSON`, then one turn for each line read.

It prints one line of JSON when it is ready, with the masks' file, and one for each turn: seconds
and cores in use.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import torch

from peer.networks import load_weights
from peer.systems import networks, video


def main() -> None:
    """Loads, warms up, answers."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job["tf32"]
    model = networks(job)
    load_weights(model, job["weights"])
    dtype = getattr(torch, job["dtype"])
    model = model.eval().to(job["device"], dtype, memory_format=torch.channels_last)
    if job["compile"]:
        for name in ("key_encoder", "value_encoder", "decoder"):
            setattr(model, name, torch.compile(getattr(model, name)))
    with np.load(job["clip"]) as clip:
        frames, mask = torch.from_numpy(clip["frames"]), clip["mask"]
        fresh = video(job, model, clip)
    objects = int(mask.max())
    masks = torch.from_numpy((np.arange(1, objects + 1)[:, None, None] == mask).astype(np.float32))

    def turn() -> np.ndarray:
        run = fresh()
        run.start(frames[0], masks)
        labels = [run.step(frame) for frame in frames[1:]]
        return torch.stack(labels).cpu().numpy()

    with torch.inference_mode():
        np.save(job["masks"], turn())
        print(
            json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True
        )
        for _ in sys.stdin:
            busy, begun = time.process_time(), time.perf_counter()
            turn()
            seconds = time.perf_counter() - begun
            cores = (time.process_time() - busy) / seconds
            print(json.dumps({"seconds": seconds, "cores": cores}), flush=True)


if __name__ == "__main__":
    main()

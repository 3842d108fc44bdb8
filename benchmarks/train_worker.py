"""Our training steps in a process of their own, as `peer.train_worker`: `train_worker JSON`.

The answer that it is ready tells what compiling took and the scratch memory of the program.
"""

import dataclasses
import json
import sys
import time
from typing import Any

import jax
import numpy as np
from measure import peak_memory_bytes

import rdejax
from rdejax.data.batch import Clip
from rdejax.train.load_config import load_config
from rdejax.train.step import init_state, make_step


def main() -> None:
    """Loads, compiles, answers."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    config = load_config(job["config"])
    scale = dataclasses.replace(config.scale, precision="float32", remat=job["remat"])
    config = dataclasses.replace(config, scale=scale)
    model = rdejax.load_model(job["weights"])
    with np.load(job["batch"]) as batch:
        arrays: dict[str, Any] = {name: jax.numpy.asarray(batch[name]) for name in batch}
    clips = Clip(**arrays)
    state = init_state(model, config)[1]
    begun = time.perf_counter()
    step = make_step(model, config).lower(state, clips).compile()
    compile_s = time.perf_counter() - begun
    memory: Any = step.memory_analysis()
    answer = {
        "compile_s": compile_s,
        "scratch_bytes": memory.temp_size_in_bytes,
        "peak_bytes": peak_memory_bytes(),
    }
    print(json.dumps(answer), flush=True)
    del model  # its arrays are given to the first step
    for _ in sys.stdin:
        busy, begun = time.process_time(), time.perf_counter()
        state, metrics = step(state, clips)
        loss = float(jax.block_until_ready(metrics["loss"]))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - begun
        answer = {
            "loss": loss,
            "seconds": seconds,
            "cores": (time.process_time() - busy) / seconds,
            "peak_bytes": peak_memory_bytes(),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

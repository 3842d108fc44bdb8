"""Whether a training run of several processes stops, with one answer for all of them."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from rdejax.train.parallel import batch_sharding

# Steps between asking all processes whether to stop and looking at the answer.
_LAG = 2


class Agreement:
    """Whether to stop, with one answer on all processes in the same step.

    A signal reaches the processes of a run in different steps, but saving needs all of them. Each
    call starts a tiny reduction over the devices and looks at the one of two calls ago, which is
    done by then: nothing waits for the device.
    """

    def __init__(self, mesh: Mesh):
        self._sharding = batch_sharding(mesh)
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._waiting: deque[Array] = deque()

    def __call__(self, asked: bool) -> bool:
        """The answer; `asked` is this process's own wish. To be called in every step."""
        if jax.process_count() == 1:
            return asked
        flags = np.full(jax.local_device_count(), asked, np.int32)
        self._waiting.append(
            self._any(jax.make_array_from_process_local_data(self._sharding, flags))
        )
        return len(self._waiting) > _LAG and bool(self._waiting.popleft())

"""Devices and processes: the mesh, and where the train state and the batches lie on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from rdejax.data.batch import Clip
from rdejax.errors import RdejaxError, first_line
from rdejax.train.config import ScaleConfig

AXIS = "data"


def start_processes(scale: ScaleConfig) -> None:
    """Joins the other processes, if the run has several, and checks the number of devices.

    Must come before anything else touches a device. Under SLURM, Open MPI and cloud TPUs
    `jax.distributed.initialize()` finds its settings; elsewhere `scale` names them.

    Raises:
      RdejaxError: the others cannot be reached, or the devices are not as many as expected.
    """
    numbered = scale.processes is not None or scale.process is not None
    if numbered and not scale.distributed and scale.coordinator is None:
        raise RdejaxError(
            "scale.processes and scale.process without scale.coordinator would start a run of one "
            "process; give scale.coordinator, too, or scale.distributed"
        )
    if scale.distributed or scale.coordinator is not None:
        try:
            jax.distributed.initialize(scale.coordinator, scale.processes, scale.process)
        except (RuntimeError, ValueError) as error:
            raise RdejaxError(
                f"the processes of the run did not find each other ({first_line(error)}); "
                "set scale.coordinator (host:port of process 0), scale.processes and scale.process"
            ) from None
    if scale.devices and jax.device_count() != scale.devices:
        raise RdejaxError(
            f"{jax.device_count()} devices in {jax.process_count()} processes, scale.devices="
            f"{scale.devices}; check the job's tasks per node and visible devices"
        )


def make_mesh(batch: int, accumulate: int = 1) -> Mesh:
    """A mesh of all devices of all processes, one axis "data".

    Args:
      batch: clips per step over all devices.
      accumulate: parts the batch is worked through in.

    Raises:
      RdejaxError: the devices do not divide a part of the batch.
    """
    devices = np.array(jax.devices())
    if batch % (len(devices) * accumulate):
        raise RdejaxError(
            f"batch={batch} does not divide over {len(devices)} devices times accumulate="
            f"{accumulate}; give a multiple of {len(devices) * accumulate}"
        )
    return Mesh(devices, (AXIS,))


def state_shardings(state: Any, mesh: Mesh, *, fsdp: bool) -> Any:
    """Where each array of a train state lies: on every device, or (`fsdp`) cut along one axis.

    An array is cut along its longest axis that the devices divide; those without one, all of them
    small, are on every device.
    """

    def one(leaf: Any) -> NamedSharding:
        spec: list[str | None] = [None] * np.ndim(leaf)
        if fsdp:
            fits = [(n, i) for i, n in enumerate(np.shape(leaf)) if n and n % mesh.size == 0]
            if fits:
                spec[max(fits)[1]] = AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(one, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are cut along their first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def shard_state(state: Any, mesh: Mesh, *, fsdp: bool) -> Any:
    """The state on the devices of the mesh; every process holds the same state before."""

    def put(leaf: Any, sharding: NamedSharding) -> Array:
        # Each process cuts its own copy; `jax.device_put` would first compare those of all.
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, state, state_shardings(state, mesh, fsdp=fsdp))


def put_batch(batch: Clip, mesh: Mesh) -> Clip:
    """A global batch of which this process gives its share, process by process in order."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

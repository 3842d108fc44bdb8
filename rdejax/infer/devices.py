"""Sequences over the devices of this process: each has one to itself, several run at a time."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Another device's sequence has failed, or the run is ended: this one is not to be finished."""


def over_devices(
    items: Sequence[T],
    model: Any,
    devices: Sequence[Any],
    work: Callable[[T, Any, Callable[[], None]], object],
) -> None:
    """Works off items, each on the next device that is free.

    With one device all is done on this thread, one after the other. With several the costliest
    items should come first.

    Args:
      items: what is to be done.
      model: as it was loaded.
      devices: JAX devices of this process.
      work: does an item, with a model whose weights lie on the item's device; it calls its last
        argument now and then, which raises `Stopped` when the item is to be left.

    Raises:
      BaseException: the first that `work` raised; then all devices have stopped.
    """
    if len(devices) == 1 or len(items) <= 1:
        for item in items:
            work(item, model, lambda: None)
        return
    import jax

    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise Stopped

    def serve(device: Any) -> None:
        try:
            placed = jax.device_put(model, device)
            while True:
                check()
                work(waiting.get_nowait(), placed, check)
        except (queue.Empty, Stopped):
            return
        except BaseException:
            stop.set()
            raise

    used = devices[: len(items)]
    with ThreadPoolExecutor(len(used), thread_name_prefix="device") as pool:
        try:
            for future in as_completed([pool.submit(serve, device) for device in used]):
                future.result()
        finally:
            # By Ctrl-C, too; leaving the pool waits for its threads.
            stop.set()

"""Two compiled programs at the same time on CPUs.

XLA's CPU backend runs what one thread dispatches one after the other, even where it could run side
by side. Few operations of a small network keep every core busy, so the next frames are encoded
while those before them are segmented: dispatched by a thread of their own.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


def dispatched_beside(call: Callable[..., R], *args: object, **options: object) -> R:
    """Calls a compiled function from another thread, the same one for each calling thread.

    Returns:
      The result, which the device may still be working on.
    """
    pool = getattr(_BESIDE, "pool", None)
    if pool is None:
        pool = _BESIDE.pool = ThreadPoolExecutor(1, thread_name_prefix="dispatch")
    # In the caller's context, in which times are counted.
    return pool.submit(contextvars.copy_context().run, call, *args, **options).result()


_BESIDE = threading.local()

"""What the steps report: kept on the device, fetched now and then, checked before it is trusted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rdejax.errors import RdejaxError


class Window:
    """Metrics of the steps since the last log line.

    They stay on the device until `check`, so that the host can prepare the next step meanwhile; it
    runs ahead by one step only, or batches would pile up.

    Args:
      last_checkpoint: tells the step of the last checkpoint, or None, for the message.
    """

    def __init__(self, last_checkpoint: Callable[[], int | None]):
        self._last = last_checkpoint
        self._waiting: list[tuple[int, dict[str, Array]]] = []
        self._known: list[dict[str, float]] = []

    def add(self, step: int, metrics: dict[str, Array]) -> None:
        """Takes the metrics of a step that may still be running."""
        if self._waiting:
            jax.block_until_ready(self._waiting[-1][1]["loss"])
        self._waiting.append((step, metrics))

    def check(self) -> None:
        """Fetches what is new.

        Raises:
          RdejaxError: a loss or a gradient is not finite; the parameters are of no use then.
        """
        steps = [step for step, _ in self._waiting]
        fetched = jax.device_get([metrics for _, metrics in self._waiting])
        self._waiting = []
        for step, metrics in zip(steps, fetched, strict=True):
            values = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite([values["loss"], values["grad_norm"]]).all():
                raise RdejaxError(self._diagnosis(step, values))
            self._known.append(values)

    def means(self) -> dict[str, float]:
        """Means over all steps checked since the last call; empty if there is none."""
        known, self._known = self._known, []
        return (
            {name: float(np.mean([v[name] for v in known])) for name in known[0]} if known else {}
        )

    def _diagnosis(self, step: int, values: dict[str, float]) -> str:
        terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return (
            f"step {step}: the loss or its gradient is not finite ({terms}); "
            f"{kept(self._last())}. Lower optimizer.lr, set optimizer.clip_norm (1 is common), "
            "give optimizer.warmup more steps, try scale.precision float32, or look at the data"
        )


def kept(step: int | None) -> str:
    """What a failed run can go on from."""
    return (
        "no checkpoint was made yet" if step is None else f"the checkpoint of step {step} is kept"
    )


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a pytree is finite."""
    checks = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(checks).all()

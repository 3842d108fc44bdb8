"""The train state and the jitted step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int

from rdejax.models.base import System
from rdejax.nn.efficientnet import in_early_stage
from rdejax.train.clip import batch_loss
from rdejax.train.config import OptimizerConfig, TrainConfig


@flax.struct.dataclass
class TrainState:
    """All of a run that changes, and the weights that do not.

    Attributes:
      params: weights that are trained.
      fixed: weights that are not (frozen norms, frozen layers).
      ema: running average of `params`.
      optimizer: optimiser state.
      step: steps done.
    """

    params: Any
    fixed: Any
    ema: Any
    optimizer: Any
    step: Int[Array, ""]


def trainable(config: OptimizerConfig):
    """NNX filter of the weights that are trained."""

    def chosen(path: tuple, value: Any) -> bool:
        if not isinstance(value, nnx.Param):
            return False
        if "key_encoder" in path:
            if in_early_stage(path, config.freeze_stride):
                return False
            if config.freeze_depthwise and "depthwise" in path:
                return False
        return True

    return chosen


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with warm-up, cosine decay, gradient clipping and a lower rate for the trunk."""
    o = config.optimizer
    warmup = min(o.warmup, max(config.steps - 1, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, o.lr, warmup, max(config.steps, warmup + 1), o.lr * o.final
    )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "trunk" if "key_encoder" in jax.tree_util.keystr(path) else "new",
            params,
        )

    def adamw(factor: float) -> optax.GradientTransformation:
        return optax.adamw(lambda t: factor * schedule(t), weight_decay=o.weight_decay)

    parts = optax.partition({"new": adamw(1.0), "trunk": adamw(o.trunk_lr)}, labels)
    return optax.chain(optax.clip_by_global_norm(o.clip_norm), parts)


def split(model: System, config: TrainConfig) -> tuple[Any, Any, Any]:
    """Graph definition, trained weights and fixed weights of a model."""
    graph, trained, fixed = nnx.split(model, trainable(config.optimizer), ...)
    return graph, trained, fixed


def init_state(model: System, config: TrainConfig) -> tuple[Any, TrainState]:
    """Graph definition and the state at step 0."""
    graph, params, fixed = split(model, config)
    params, fixed = nnx.to_pure_dict(params), nnx.to_pure_dict(fixed)
    state = TrainState(
        params=params,
        fixed=fixed,
        ema=jax.tree.map(jnp.copy, params),
        optimizer=make_optimizer(config).init(params),
        step=jnp.zeros((), jnp.int32),
    )
    return graph, state


def merge(model: System, config: TrainConfig, params: Any, fixed: Any) -> System:
    """A model with the given weights; `model` only lends its structure."""
    graph, trained, rest = split(model, config)
    nnx.replace_by_pure_dict(trained, params)
    nnx.replace_by_pure_dict(rest, fixed)
    return nnx.merge(graph, trained, rest)


def make_step(model: System, config: TrainConfig):
    """The jitted train step: (state, batch) -> (state, metrics); the state is donated."""
    optimizer = make_optimizer(config)
    decay = config.optimizer.ema

    def loss(params: Any, fixed: Any, batch: dict[str, Array], step: Array):
        return batch_loss(merge(model, config, params, fixed), batch, step, config.loss)

    def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        grad = jax.value_and_grad(loss, has_aux=True)
        (total, terms), grads = grad(state.params, state.fixed, batch, state.step)
        updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short memory at first, or the random start would linger in the average.
        rate = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda a, p: rate * a + (1.0 - rate) * p, state.ema, params)
        metrics = {"loss": total, "grad_norm": optax.global_norm(grads), **terms}
        new = TrainState(params, state.fixed, ema, opt_state, state.step + 1)
        return new, metrics

    return jax.jit(step, donate_argnums=0)

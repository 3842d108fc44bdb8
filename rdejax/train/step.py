"""The train state and the jitted step."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from rdejax.data.batch import Clip
from rdejax.models import System
from rdejax.nn.layers import Frozen
from rdejax.propagate.scanning import scan
from rdejax.train.clip_loss import batch_loss
from rdejax.train.config import OptimizerConfig, TrainConfig
from rdejax.train.parallel import batch_sharding, state_shardings
from rdejax.train.system import objective_of


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


def trainable(model: System, config: OptimizerConfig):
    """NNX filter of the weights that are trained."""
    early = getattr(getattr(model, model.trunk_name, None), "in_early_stage", None)

    def chosen(path: tuple, value: Any) -> bool:
        norm = config.train_norm and isinstance(value, Frozen) and path[-1] in ("scale", "bias")
        if not (norm or isinstance(value, nnx.Param)):
            return False
        if model.trunk_name in path:
            if early is not None and early(path, config.freeze_stride):
                return False
            if config.freeze_depthwise and "depthwise" in path:
                return False
        return True

    return chosen


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Learning rate of the new parts by step: warm-up, then cosine or falling by steps."""
    o = config.optimizer
    warmup = min(o.warmup, max(config.steps - 1, 1))
    if o.schedule == "cosine":
        end = max(config.steps, warmup + 1)
        return optax.warmup_cosine_decay_schedule(0.0, o.lr, warmup, end, o.lr * o.final)
    steps = optax.piecewise_constant_schedule(o.lr, {at: 0.1 for at in o.decay_at})
    return lambda t: steps(t) * jnp.minimum(1.0, t / warmup if warmup > 0 else 1.0)


def make_optimizer(config: TrainConfig, trunk: str) -> optax.GradientTransformation:
    """Adam or AdamW with the schedule, gradient clipping and other rates for trunk and memory rule.

    Args:
      config: the run.
      trunk: see `System.trunk_name`.
    """
    o = config.optimizer
    rate = learning_rate(config)

    def label(path: tuple, _: Any) -> str:
        name = jax.tree_util.keystr(path)
        if o.rule_lr != 1 and name.startswith("['memory']"):
            return "rule"
        return "trunk" if f"'{trunk}'" in name else "new"

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(label, params)

    def part(factor: float, until: int | None = None) -> optax.GradientTransformation:
        def scaled(t: Any) -> Any:
            return (factor if until is None else jnp.where(t < until, factor, 1.0)) * rate(t)

        if o.name == "adamw":
            return optax.adamw(scaled, weight_decay=o.weight_decay)
        return optax.chain(optax.add_decayed_weights(o.weight_decay), optax.adam(scaled))

    rates: dict[Any, Any] = {"new": part(1.0), "trunk": part(o.trunk_lr)}
    if o.rule_lr != 1:
        rates["rule"] = part(o.rule_lr, o.rule_lr_steps)
    parts = optax.partition(rates, labels)
    clip = optax.clip_by_global_norm(o.clip_norm) if o.clip_norm else optax.identity()
    return optax.chain(clip, parts)


def split(model: System, config: TrainConfig) -> tuple[Any, Any, Any]:
    """Graph definition, trained weights and fixed weights of a model."""
    graph, trained, fixed = nnx.split(model, trainable(model, config.optimizer), ...)
    return graph, trained, fixed


def init_state(model: System, config: TrainConfig) -> tuple[Any, TrainState]:
    """Graph definition and the state at step 0, whose weights are the model's own arrays.

    A step that donates the state leaves the model without them; copy them to use both.
    """
    graph, params, fixed = split(model, config)
    params, fixed = nnx.to_pure_dict(params), nnx.to_pure_dict(fixed)
    state = TrainState(
        params=params,
        fixed=fixed,
        ema=jax.tree.map(jnp.copy, params),
        optimizer=make_optimizer(config, model.trunk_name).init(params),
        step=jnp.zeros((), jnp.int32),
    )
    return graph, state


def merge(model: System, config: TrainConfig, params: Any, fixed: Any) -> System:
    """A model with the given weights; `model` only lends its structure."""
    graph, trained, rest = split(model, config)
    nnx.replace_by_pure_dict(trained, params)
    nnx.replace_by_pure_dict(rest, fixed)
    return nnx.merge(graph, trained, rest)


def _compute_type(config: TrainConfig) -> Any:
    return jnp.bfloat16 if config.scale.precision == "bfloat16" else jnp.float32


def _cast(tree: Any, dtype: Any) -> Any:
    def one(path: tuple, x: Array) -> Array:
        # Statistics of norms stay as they are: rounded, they would be those of another network.
        statistic = path[-1].key in ("mean", "var")
        return x if statistic or not jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype)

    return jax.tree_util.tree_map_with_path(one, tree)


def _step_key(config: TrainConfig, step: Array) -> Array:
    return jax.random.fold_in(jax.random.key(config.seed), step)


def make_gradients(model: System, config: TrainConfig) -> Callable[..., tuple[Any, Any]]:
    """(state, batch) -> (metrics, gradients), in as many parts as `scale.accumulate` says."""
    dtype, parts = _compute_type(config), config.scale.accumulate
    objective = objective_of(config)

    def loss(params: Any, fixed: Any, batch: Clip, keys: Array, step: Array):
        # Gradients come back through the cast, so they and the parameters stay float32.
        merged = merge(model, config, _cast(params, dtype), _cast(fixed, dtype))
        how = {"remat": config.scale.remat, "dtype": dtype}
        total, terms = batch_loss(merged, batch, keys, step, objective, config.loss, **how)
        return total, {"loss": total, **terms}

    gradient = jax.grad(loss, has_aux=True)

    def gradients(state: TrainState, batch: Clip) -> tuple[Any, Any]:
        def part(inputs: tuple[Clip, Array]) -> tuple[Any, Any]:
            grads, metrics = gradient(state.params, state.fixed, *inputs, state.step)
            return metrics, grads

        key = jax.random.fold_in(_step_key(config, state.step), 1)
        keyed = (batch, jax.random.split(key, batch.frames.shape[0]))
        if parts == 1:
            return part(keyed)
        # Every part takes each device's share of clips, so no clip changes its device.
        cut = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), keyed)
        like = jax.eval_shape(part, jax.tree.map(lambda x: x[0], cut))
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        total, _ = scan(lambda sums, x: (jax.tree.map(jnp.add, sums, part(x)), None), zero, cut)
        return jax.tree.map(lambda x: x / parts, total)

    return gradients


def make_update(model: System, config: TrainConfig) -> Callable[..., tuple[TrainState, Any]]:
    """The train step as a pure function: (state, batch) -> (state, metrics).

    Metrics are float32 scalars: the loss and its terms, grad_norm (before clipping), learning_rate.
    """
    optimizer, rate = make_optimizer(config, model.trunk_name), learning_rate(config)
    gradients, decay = make_gradients(model, config), config.optimizer.ema

    def step(state: TrainState, batch: Clip) -> tuple[TrainState, dict[str, Array]]:
        if config.video.on_device:
            from rdejax.data.clips.augment_on_device import augment_batch

            batch = augment_batch(_step_key(config, state.step), batch, config.video)
        metrics, grads = gradients(state, batch)
        updates, opt_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # A short memory at first, or the random start would linger in the average.
        keep = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda a, p: keep * a + (1.0 - keep) * p, state.ema, params)
        metrics |= {"grad_norm": optax.tree.norm(grads), "learning_rate": rate(state.step)}
        return TrainState(params, state.fixed, ema, opt_state, state.step + 1), metrics

    return step


def make_step(model: System, config: TrainConfig, mesh: Mesh | None = None):
    """`make_update`, jitted; the state is donated.

    Args:
      model: lends its structure.
      config: the run.
      mesh: devices over which batch and, with `scale.fsdp`, parameters are spread; the state must
        lie there (`rdejax.train.parallel.shard_state`). None: the default device.
    """
    step = make_update(model, config)
    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    shapes = jax.eval_shape(lambda: init_state(model, config)[1])
    lies = state_shardings(shapes, mesh, fsdp=config.scale.fsdp)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(lies, batch_sharding(mesh)),
        out_shardings=(lies, everywhere),
    )


def make_predict(model: System, config: TrainConfig, mesh: Mesh | None = None):
    """Jitted (state, batch) -> labels uint8 [b, t-1, H, W] by the averaged weights."""
    dtype, objective = _compute_type(config), objective_of(config)

    def predict(state: TrainState, batch: Clip) -> Array:
        averaged = merge(model, config, _cast(state.ema, dtype), _cast(state.fixed, dtype))

        def one(clip: Clip, key: Array) -> Array:
            logits = objective(averaged, clip, key, dtype=dtype).logits
            return jnp.argmax(logits, axis=1).astype(jnp.uint8)

        keys = jax.random.split(_step_key(config, state.step), batch.frames.shape[0])
        return jax.vmap(one)(batch, keys)

    return jax.jit(predict, out_shardings=None if mesh is None else batch_sharding(mesh))

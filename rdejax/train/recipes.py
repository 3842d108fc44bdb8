"""What the published recipes have in common; `rdejax/configs/` fills in the rest."""

import dataclasses
from typing import Any

from rdejax.data.config import ClipConfig, VideoConfig
from rdejax.train.config import LossConfig, OptimizerConfig, ScaleConfig, TrainConfig

# Gap curriculum of BL30K; `VideoConfig`'s default is that of DAVIS and YouTube-VOS.
BL30K_PHASES = (0.1, 0.2, 0.3, 0.4, 0.8)


def published_optimizer(lr: float, decay_at: int) -> OptimizerConfig:
    """Adam at a constant rate, a tenth of it from step `decay_at` on; everything is trained."""
    return OptimizerConfig(
        name="adam",
        lr=lr,
        trunk_lr=1.0,
        schedule="steps",
        decay_at=(decay_at,),
        warmup=0,
        weight_decay=1e-7,
        clip_norm=0.0,
        ema=0.0,
        freeze_stride=0,
        freeze_depthwise=False,
        train_norm=True,
    )


def image_clip(perturb: float) -> ClipConfig:
    """Stage 0: three warps (affine and thin-plate spline) of one image, one object, 384 x 384.

    Args:
      perturb: lowest IoU of the perturbed first mask; 1 for the true mask (STCN).
    """
    return ClipConfig(
        frames=3, size=384, objects=1, paste=0.0, distractors=0, jump=0.0, perturb=perturb
    )


def video_clip(frames: int, perturb: float) -> ClipConfig:
    """Stages 1 to 3: clips of videos, two objects, 384 x 384."""
    return ClipConfig(frames=frames, size=384, objects=2, perturb=perturb)


def bl30k_video() -> VideoConfig:
    """BL30K: its own curriculum and crop, and no objects that are slivers or fill the frame."""
    return VideoConfig(phases=BL30K_PHASES, crop=0.25, min_area=0.005, max_area=0.6)


MIXED = ScaleConfig(precision="bfloat16")

SWEM_LOSS = LossConfig(
    class_iou=1.0,
    top_p=0.3,
    bootstrap_start=20_000,
    bootstrap_end=70_000,
)
SWEM_OPTIMIZER = OptimizerConfig(
    name="adamw",
    lr=2e-5,
    trunk_lr=1.0,
    schedule="steps",
    warmup=0,
    weight_decay=5e-4,
    clip_norm=0.0,
    ema=0.0,
    freeze_stride=0,
    freeze_depthwise=False,
    train_norm=True,
)
# No bootstrapping: every pixel counts.
STM_LOSS = LossConfig(top_p=1.0)


def xmem_clip() -> ClipConfig:
    """XMem, stages 1 to 3: clips of eight frames, three objects, 384 x 384, the true first mask."""
    return ClipConfig(frames=8, size=384, objects=3, perturb=1.0)


def xmem_loss(frames: int) -> LossConfig:
    """Bootstrapped cross-entropy and dice, added up over the clip's frames after the first.

    The objective adds up the cross-entropies (`reduce=sum`); the dice loss is a mean over frames.
    """
    return LossConfig(slot_dice=float(frames - 1), bootstrap_start=20_000, bootstrap_end=70_000)


def xmem_optimizer(decay_at: tuple[int, ...]) -> OptimizerConfig:
    """AdamW at 1e-5 and a tenth of it from `decay_at` on, weight decay 0.05 on everything."""
    return OptimizerConfig(
        name="adamw",
        lr=1e-5,
        trunk_lr=1.0,
        schedule="steps",
        decay_at=decay_at,
        warmup=0,
        weight_decay=0.05,
        clip_norm=0.0,
        ema=0.0,
        freeze_stride=0,
        freeze_depthwise=False,
        train_norm=True,
    )


# Gap curriculum of XMem on DAVIS and YouTube-VOS, and on BL30K.
XMEM_VIDEO = VideoConfig(gaps=(5, 10, 15, 5), phases=(0.1, 0.3, 0.9))
XMEM_BL30K = VideoConfig(
    gaps=(5, 10, 15, 5), phases=(0.1, 0.3, 0.8), crop=0.25, min_area=0.005, max_area=0.6
)


def with_tmrn(host: TrainConfig) -> TrainConfig:
    """The recipe of a host with TMRN in the place of its memory's read.

    Published: the host's data, losses and schedules stay as they are. This library's own: the new
    weights are trained ten times as fast for the first 2 000 steps.
    """
    optimizer = dataclasses.replace(host.optimizer, rule_lr=10.0, rule_lr_steps=2_000)
    return dataclasses.replace(host, memory="tmrn", optimizer=optimizer)


# Gentle motion, and others in the picture: what the lite systems train on from still images.
GENTLE_MOTION: dict[str, Any] = {
    "speed": 0.08,
    "camera": 0.05,
    "turn": 0.12,
    "zoom": 0.07,
    "bend": 0.06,
    "jump": 0.08,
    "distractor": 0.45,
}

# What both stages of dmn-lite have in common, beside the number of frames.
DMN_LITE_CLIP: dict[str, Any] = {
    "size": 224,
    "objects": 2,
    "second_object": 0.7,
    "paste": 0.6,
    "smallest": 0.12,
    "largest": 0.7,
    "distractor": 0.3,
    "speed": 0.07,
    "camera": 0.05,
    "turn": 0.12,
    "zoom": 0.07,
    "bend": 0.05,
    "jump": 0.05,
    "perturb": 0.9,
}
DMN_LITE_VIDEO = VideoConfig(gaps=(3,), phases=(), crop=0.3, min_area=0.004, keep_megabytes=800)

# DMN-AOA (supplement): one scale of 1 to 1.5 for all frames, flip and reversal in half of the
# clips, a crop of fixed size. A crop of 1 / 1.5^2 of the frame's area is the smallest.
DMN_VIDEO = VideoConfig(
    gaps=(5,), phases=(), reverse=0.5, crop=0.44, flip=0.5, turn=0.0, shear=0.0, zoom=0.0
)
# Cross-entropy and soft IoU of the refined masks; matching and detection are the objective's.
DMN_LOSS = LossConfig(soft_iou=1.0, top_p=1.0)
DMN_OPTIMIZER = OptimizerConfig(
    name="adamw",
    lr=1e-4,
    trunk_lr=0.1,
    weight_decay=1e-4,
    warmup=1_000,
    clip_norm=5.0,
    freeze_stride=0,
    freeze_depthwise=False,
)

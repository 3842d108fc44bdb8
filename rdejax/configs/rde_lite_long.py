"""rde-lite, third stage: longer and larger clips of one object, gentler motion.

    rdejax train rde_lite_long --workdir runs/long --init runs/lite \
        --data ECSSD_DIR COCO128_DIR

About three seconds a step on two CPU cores. Seven frames let the recurrent embedding see its own
errors grow, as they do in a video. The bundled weights come from a run of this kind, in two parts;
docs/model_card_rde_lite.md tells which.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.recipes import GENTLE_MOTION

config = TrainConfig(
    system="rde-lite",
    data_weights=(0.85, 0.15),
    clip=ClipConfig(frames=7, size=256, objects=1, **GENTLE_MOTION),
    batch=3,
    steps=1800,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=3.5e-4, trunk_lr=0.25, weight_decay=1e-3, clip_norm=1.0, warmup=60, ema=0.996
    ),
    save_every=100,
)

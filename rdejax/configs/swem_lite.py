"""swem-lite: SWEM's memory and fusion on the body of rde-lite, trained on from its weights.

    rdejax train swem_lite --workdir runs/swem --data ECSSD_DIR COCO128_DIR

Every frame is read from the bases, never from a bank. Fusion and decoder input start at random, all
else from the bundled rde-lite. About two seconds a step on two CPU cores.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.recipes import GENTLE_MOTION

config = TrainConfig(
    system="swem-lite",
    init="rde-lite",
    init_partial=True,
    data_weights=(0.85, 0.15),
    clip=ClipConfig(frames=5, size=224, objects=1, perturb=1.0, **GENTLE_MOTION),
    batch=4,
    steps=1200,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=6e-4, trunk_lr=0.2, weight_decay=1e-3, clip_norm=1.0, warmup=60, ema=0.996
    ),
    save_every=100,
)

"""dmn-lite, second stage: everything together, after dmn_lite_detector.

    rdejax train dmn_lite_joint --workdir runs/dmn_joint --init runs/dmn_detector \
        --data folder:VIDEOS static:ECSSD static:COCO128 synthetic --data-weights 0.4 0.25 0.2 0.15
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.recipes import DMN_LITE_CLIP, DMN_LITE_VIDEO

config = TrainConfig(
    system="dmn-lite",
    clip=ClipConfig(frames=3, **DMN_LITE_CLIP),
    video=DMN_LITE_VIDEO,
    batch=2,
    steps=300,
    objective_settings=("true_previous=0.5", "oracle=0.3"),
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=8e-4, trunk_lr=0.2, weight_decay=1e-3, clip_norm=5.0, warmup=30, final=0.0, ema=0.99
    ),
    save_every=40,
    log_every=10,
)

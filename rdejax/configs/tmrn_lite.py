"""TMRN on the body of rde-lite, trained on from its weights.

    rdejax train tmrn_lite --workdir runs/tmrn_lite --data ECSSD_DIR COCO128_DIR

Fresh, it reads as a growing bank does. The objective is that of systems that read their own memory:
every frame is segmented from the frames before it. About three seconds a step on two CPU cores.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    memory="tmrn",
    init="rde-lite",
    objective="unroll",
    data_weights=(0.8, 0.2),
    clip=ClipConfig(frames=5, size=192, objects=2, perturb=1.0, distractor=0.45, lookalike=0.5),
    batch=4,
    steps=640,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=2e-4,
        trunk_lr=0.2,
        rule_lr=10.0,
        rule_lr_steps=320,
        weight_decay=1e-3,
        clip_norm=1.0,
        warmup=30,
        ema=0.99,
    ),
)

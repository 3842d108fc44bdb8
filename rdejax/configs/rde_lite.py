"""rde-lite, SAM stage: two objects, five frames, the recurrent embedding trained with the rest.

    rdejax train rde_lite --workdir runs/lite --init runs/static/weights.safetensors \
        --data ECSSD_DIR COCO128_DIR

Two to three seconds a step on two CPU cores. The bundled weights are this run's; their model card
is docs/model_card_rde_lite.md.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    data_weights=(0.8, 0.2),
    clip=ClipConfig(frames=5, size=192, objects=2),
    batch=4,
    steps=640,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=3e-4, trunk_lr=0.2, weight_decay=1e-3, clip_norm=1.0, warmup=30, ema=0.99
    ),
)

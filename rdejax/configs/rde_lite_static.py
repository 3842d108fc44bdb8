"""rde-lite, stage 0: one object, three frames, growing bank (RDE-VOS's static-image stage).

    rdejax train rde_lite_static --workdir runs/static \
        --data ECSSD_DIR COCO128_DIR

About one second a step on two CPU cores. Its weights are where `rde_lite` starts.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    trunk="package",
    data_weights=(0.8, 0.2),
    clip=ClipConfig(frames=3, size=192, objects=1),
    batch=8,
    steps=1100,
    objective="rde",
    objective_settings=("patterns=stm",),
    loss=LossConfig(soft_iou=1.0, top_p=0.25, bootstrap_start=200, bootstrap_end=800),
    optimizer=OptimizerConfig(lr=8e-4, trunk_lr=0.2, weight_decay=1e-3, clip_norm=2.0, final=0.3),
)

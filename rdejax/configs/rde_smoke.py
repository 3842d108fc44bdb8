"""rde at its published size, twenty steps on tiny clips, to see that everything works.

    rdejax train rde_smoke --workdir runs/rde_smoke

Needs no data: its clips are made from nothing. A few minutes on CPUs.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde",
    data=("synthetic",),
    clip=ClipConfig(frames=5, size=64, objects=2),
    batch=2,
    steps=20,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(lr=1e-3, warmup=5, ema=0.9, freeze_stride=0),
    save_every=10,
    log_every=5,
)

"""rde-lite, a run of a minute that shows that everything works.

    rdejax train rde_lite_smoke --workdir runs/rde_lite_smoke

Needs no data: its clips are made from nothing. The network learns nothing useful in thirty steps.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    data=("synthetic",),
    clip=ClipConfig(frames=3, size=96, objects=2),
    batch=2,
    steps=30,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(lr=1e-3, warmup=5, ema=0.9),
    save_every=10,
    log_every=5,
)

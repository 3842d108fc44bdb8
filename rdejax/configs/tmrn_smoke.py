"""TMRN on the body of rde-lite, a run of a minute that shows that everything works.

    rdejax train tmrn_smoke --workdir runs/tmrn_smoke

Needs no data: its clips are made from nothing.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    memory="tmrn",
    init="rde-lite",
    objective="unroll",
    data=("synthetic",),
    clip=ClipConfig(frames=4, size=96, objects=2, perturb=1.0),
    batch=2,
    steps=30,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(lr=2e-4, rule_lr=10.0, warmup=5, ema=0.9),
    save_every=10,
    log_every=5,
)

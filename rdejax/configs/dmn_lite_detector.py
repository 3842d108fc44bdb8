"""dmn-lite, first stage: trunk, pyramid and detector.

    rdejax train dmn_lite_detector --workdir runs/dmn_detector \
        --data folder:VIDEOS static:ECSSD static:COCO128 synthetic --data-weights 0.4 0.25 0.2 0.15

The trunk starts from the bundled rde-lite, all else at random. Every annotated object of every
frame counts, those of static images too. What is logged as IoU is that of the proposals that
overlap the objects most.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.recipes import DMN_LITE_CLIP, DMN_LITE_VIDEO

config = TrainConfig(
    system="dmn-lite",
    init="rde-lite",
    init_partial=True,
    clip=ClipConfig(frames=2, **DMN_LITE_CLIP),
    video=DMN_LITE_VIDEO,
    batch=4,
    steps=500,
    objective_settings=("stage=detector",),
    loss=LossConfig(top_p=1.0),
    optimizer=OptimizerConfig(
        lr=1e-3, trunk_lr=0.2, weight_decay=1e-3, clip_norm=5.0, warmup=30, final=0.1, ema=0.99
    ),
    save_every=100,
    log_every=10,
)

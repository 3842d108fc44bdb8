"""STCN, stage 0: static images, one object.

    rdejax train stcn_stage0 --workdir runs/stcn_stage0 \
        --data static:ECSSD static:FSS static:DUTS ...

Start from ImageNet weights with --trunk RESNET50.pth. Published: two GPUs with 8 clips each.
"""

from rdejax.train.config import LossConfig, TrainConfig
from rdejax.train.recipes import MIXED, image_clip, published_optimizer

config = TrainConfig(
    system="stcn",
    single_object=True,
    clip=image_clip(perturb=1.0),
    batch=16,
    steps=300_000,
    loss=LossConfig(bootstrap_start=20_000, bootstrap_end=70_000),
    optimizer=published_optimizer(lr=1e-5, decay_at=150_000),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

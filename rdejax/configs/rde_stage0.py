"""RDE-VOS, stage 0: static images, one object, no recurrent embedding.

    rdejax train rde_stage0 --workdir runs/rde_stage0 \
        --data static:ECSSD static:FSS static:DUTS ...

Start from ImageNet weights with --trunk RESNET50.pth. Published: four GPUs with 16 clips each.
"""

from rdejax.train.config import LossConfig, TrainConfig
from rdejax.train.recipes import MIXED, image_clip, published_optimizer

config = TrainConfig(
    system="rde",
    single_object=True,
    clip=image_clip(perturb=0.85),
    batch=64,
    steps=75_000,
    objective="rde",
    objective_settings=(
        "patterns=stm",
        "convention=public",
        "guidance=0.0",
    ),
    loss=LossConfig(
        bootstrap_start=5_000,
        bootstrap_end=17_500,
    ),
    optimizer=published_optimizer(lr=2e-5, decay_at=37_500),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

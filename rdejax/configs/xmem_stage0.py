"""XMem, stage 0: static images, one object.

    rdejax train xmem_stage0 --workdir runs/xmem_stage0 \
        --data static:ECSSD static:FSS static:DUTS ...

Start from ImageNet weights with --trunk RESNET50.pth. Published: DUTS (both halves), ECSSD and FSS,
and BIG and HRSOD five times each.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, image_clip, xmem_loss, xmem_optimizer

config = TrainConfig(
    system="xmem",
    single_object=True,
    clip=image_clip(perturb=1.0),
    batch=16,
    steps=150_000,
    objective_settings=("reduce=sum",),
    loss=xmem_loss(frames=3),
    optimizer=xmem_optimizer(decay_at=()),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

"""SWEM, first stage: static images, clips of three frames, two objects.

    rdejax train swem_images --workdir runs/swem_images \
        --trunk RESNET50.pth,RESNET18.pth --data static:COCO static:MSRA10K static:ECSSD ...

About 300 000 steps (500 000 in the paper) of 4 clips; the soft-IoU loss joins the bootstrapped
cross-entropy.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, SWEM_LOSS, SWEM_OPTIMIZER

config = TrainConfig(
    system="swem",
    clip=ClipConfig(frames=3, size=384, objects=2, distractors=0, jump=0.0, perturb=1.0),
    batch=4,
    steps=300_000,
    loss=SWEM_LOSS,
    optimizer=SWEM_OPTIMIZER,
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

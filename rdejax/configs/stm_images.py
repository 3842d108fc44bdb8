"""STM, first stage: static images, clips of three frames, two objects.

    rdejax train stm_images --workdir runs/stm_images --trunk RESNET50.pth \
        --data static:COCO static:MSRA10K static:ECSSD ...

Plain cross-entropy and Adam at 1e-5. The paper does not say how many steps; give yours.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, STM_LOSS, published_optimizer

config = TrainConfig(
    system="stm",
    clip=ClipConfig(frames=3, size=384, objects=2, distractors=0, jump=0.0, perturb=1.0),
    batch=4,
    steps=300_000,
    loss=STM_LOSS,
    optimizer=published_optimizer(lr=1e-5, decay_at=300_000),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

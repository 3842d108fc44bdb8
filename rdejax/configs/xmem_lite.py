"""xmem-lite: XMem's memories on the body of rde-lite, trained on from its weights.

    rdejax train xmem_lite --workdir runs/xmem_lite --data ECSSD_DIR COCO128_DIR

The run begins as rde-lite with XMem's memory; shrinkage, selection and the sensory memory are
learned. Six frames, the first and two random earlier ones of which a frame reads, as in XMem's
stages. A run of a minute that shows that everything works, without any data:

    rdejax train xmem_lite --workdir runs/xmem_lite_smoke --data synthetic \
        --data-weights 1 --clip.size 96 --clip.frames 4 --batch 2 --steps 20 --log-every 5
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig
from rdejax.train.recipes import GENTLE_MOTION

config = TrainConfig(
    system="xmem-lite",
    init="rde-lite",
    init_partial=True,
    data_weights=(0.85, 0.15),
    clip=ClipConfig(frames=6, size=192, objects=2, perturb=1.0, **GENTLE_MOTION),
    batch=4,
    steps=1200,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=3e-4, trunk_lr=0.2, weight_decay=1e-3, clip_norm=1.0, warmup=60, ema=0.996
    ),
    save_every=100,
)

"""XMem, stage 1: BL30K, after stage 0.

    rdejax train xmem_stage1 --workdir runs/xmem_stage1 --init runs/xmem_stage0 \
        --data bl30k:BL30K

Eight frames, of which a read sees the first and two random others; three objects. The weights of
stage 0 get the channel of the other objects by themselves.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, XMEM_BL30K, xmem_clip, xmem_loss, xmem_optimizer

config = TrainConfig(
    system="xmem",
    clip=xmem_clip(),
    video=XMEM_BL30K,
    batch=8,
    steps=250_000,
    objective_settings=("reduce=sum",),
    loss=xmem_loss(frames=8),
    optimizer=xmem_optimizer(decay_at=(200_000,)),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

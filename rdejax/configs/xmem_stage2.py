"""XMem, stage 2: DAVIS and YouTube-VOS, after BL30K.

    rdejax train xmem_stage2 --workdir runs/xmem_stage2 --init runs/xmem_stage1 \
        --data davis2017:DAVIS youtube-vos:YouTubeVOS

DAVIS is repeated five times against YouTube-VOS. The last 10 000 steps are the
published fine-tuning.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, XMEM_VIDEO, xmem_clip, xmem_loss, xmem_optimizer

config = TrainConfig(
    system="xmem",
    clip=xmem_clip(),
    video=XMEM_VIDEO,
    batch=8,
    steps=160_000,
    objective_settings=("reduce=sum",),
    loss=xmem_loss(frames=8),
    optimizer=xmem_optimizer(decay_at=(120_000,)),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

"""XMem, stage 3: DAVIS and YouTube-VOS, straight after stage 0.

    rdejax train xmem_stage3 --workdir runs/xmem_stage3 --init runs/xmem_stage0 \
        --data davis2017:DAVIS youtube-vos:YouTubeVOS

DAVIS is repeated five times against YouTube-VOS. The last 10 000 steps are the
published fine-tuning. The weights of stage 0 get the channel of the other objects by themselves.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, XMEM_VIDEO, xmem_clip, xmem_loss, xmem_optimizer

config = TrainConfig(
    system="xmem",
    clip=xmem_clip(),
    video=XMEM_VIDEO,
    batch=8,
    steps=110_000,
    objective_settings=("reduce=sum",),
    loss=xmem_loss(frames=8),
    optimizer=xmem_optimizer(decay_at=(80_000,)),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

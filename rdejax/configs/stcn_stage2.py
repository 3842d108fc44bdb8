"""STCN, stage 2: DAVIS and YouTube-VOS, after BL30K.

    rdejax train stcn_stage2 --workdir runs/stcn_stage2 --init runs/stcn_stage1 \
        --data davis2017:DAVIS youtube-vos:YouTubeVOS

DAVIS is repeated five times against YouTube-VOS.
"""

from rdejax.train.config import LossConfig, TrainConfig
from rdejax.train.recipes import MIXED, published_optimizer, video_clip

config = TrainConfig(
    system="stcn",
    clip=video_clip(frames=3, perturb=1.0),
    batch=8,
    steps=150_000,
    loss=LossConfig(bootstrap_start=20_000, bootstrap_end=70_000),
    optimizer=published_optimizer(lr=1e-5, decay_at=125_000),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

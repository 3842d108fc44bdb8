"""RDE-VOS, stage 2: DAVIS and YouTube-VOS, after BL30K.

    rdejax train rde_stage2 --workdir runs/rde_stage2 --init runs/rde_stage1 \
        --data davis2017:DAVIS youtube-vos:YouTubeVOS

DAVIS is repeated five times against YouTube-VOS.
"""

from rdejax.train.config import LossConfig, TrainConfig
from rdejax.train.recipes import MIXED, published_optimizer, video_clip

config = TrainConfig(
    system="rde",
    clip=video_clip(frames=5, perturb=0.85),
    batch=16,
    steps=75_000,
    objective="rde",
    objective_settings=(
        "convention=public",
        "guidance=5.0",
        "consistency=5.0",
    ),
    loss=LossConfig(
        bootstrap_start=20_000,
        bootstrap_end=70_000,
    ),
    optimizer=published_optimizer(lr=2e-5, decay_at=62_500),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

"""RDE-VOS, stage 1: BL30K, after stage 0.

    rdejax train rde_stage1 --workdir runs/rde_stage1 --init runs/rde_stage0 \
        --data bl30k:BL30K

Two objects; the weights of stage 0 get the channel of the other objects by themselves.
"""

from rdejax.train.config import LossConfig, TrainConfig
from rdejax.train.recipes import MIXED, bl30k_video, published_optimizer, video_clip

config = TrainConfig(
    system="rde",
    clip=video_clip(frames=5, perturb=0.85),
    video=bl30k_video(),
    batch=8,
    steps=500_000,
    objective="rde",
    objective_settings=(
        "convention=public",
        "guidance=10.0",
        "consistency=10.0",
    ),
    loss=LossConfig(
        bootstrap_start=20_000,
        bootstrap_end=70_000,
    ),
    optimizer=published_optimizer(lr=1e-5, decay_at=400_000),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

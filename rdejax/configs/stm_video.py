"""STM, second stage: DAVIS and YouTube-VOS, from the weights of the first.

    rdejax train stm_video --workdir runs/stm_video --init runs/stm_images \
        --data davis2017:DAVIS youtube-vos:YOUTUBE_VOS

Clips of three frames whose largest gap grows from 5 to 25, plain cross-entropy and Adam at 1e-5.
The paper does not say how many steps; give yours.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, STM_LOSS, published_optimizer, video_clip

config = TrainConfig(
    system="stm",
    clip=video_clip(frames=3, perturb=1.0),
    batch=4,
    steps=150_000,
    loss=STM_LOSS,
    optimizer=published_optimizer(lr=1e-5, decay_at=150_000),
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

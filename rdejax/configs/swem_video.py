"""SWEM, second stage: DAVIS and YouTube-VOS, from the weights of the first.

    rdejax train swem_video --workdir runs/swem_video --init runs/swem_images \
        --data davis2017:DAVIS youtube-vos:YOUTUBE_VOS

Published: about 150 000 steps (200 000 in the paper) of 4 clips; a clip of YouTube-VOS is eleven
times likelier than one of DAVIS.
"""

from rdejax.train.config import TrainConfig
from rdejax.train.recipes import MIXED, SWEM_LOSS, SWEM_OPTIMIZER, video_clip

config = TrainConfig(
    system="swem",
    data_weights=(1.0, 11.0),
    clip=video_clip(frames=3, perturb=1.0),
    batch=4,
    steps=150_000,
    loss=SWEM_LOSS,
    optimizer=SWEM_OPTIMIZER,
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

"""DMN-AOA, second stage: everything together, the detector at a tenth of its weight.

    rdejax train dmn_aoa_joint --workdir runs/dmn_aoa --init runs/dmn_aoa_detector \
        --data youtube-vos:YTVOS davis2017:DAVIS

Clips of three frames, 352 x 352, as in the supplement; how many steps it does not say. Three
quarters of the previous masks are the true ones.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import TrainConfig
from rdejax.train.recipes import DMN_LOSS, DMN_OPTIMIZER, DMN_VIDEO, MIXED

config = TrainConfig(
    system="dmn-aoa",
    clip=ClipConfig(frames=3, size=352, objects=5, perturb=1.0),
    video=DMN_VIDEO,
    batch=4,
    steps=150_000,
    objective_settings=("detection=0.1",),
    loss=DMN_LOSS,
    optimizer=DMN_OPTIMIZER,
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

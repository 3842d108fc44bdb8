"""DMN-AOA, first stage: trunk, pyramid and detector on every annotated object.

    rdejax train dmn_aoa_detector --workdir runs/dmn_aoa_detector \
        --trunk RESNET50.pth --data static:COCO static:ECSSD youtube-vos:YTVOS davis2017:DAVIS

The published method starts from a detector that was trained on COCO; this stage and its steps are
this project's. Scale, flip, reversal and crop are those of the supplement.
"""

from rdejax.data.config import ClipConfig
from rdejax.train.config import TrainConfig
from rdejax.train.recipes import DMN_LOSS, DMN_OPTIMIZER, DMN_VIDEO, MIXED

config = TrainConfig(
    system="dmn-aoa",
    clip=ClipConfig(frames=2, size=352, objects=5, perturb=1.0),
    video=DMN_VIDEO,
    batch=8,
    steps=90_000,
    objective_settings=("stage=detector",),
    loss=DMN_LOSS,
    optimizer=DMN_OPTIMIZER,
    scale=MIXED,
    save_every=2_000,
    log_every=100,
    images_every=5_000,
    threads=8,
)

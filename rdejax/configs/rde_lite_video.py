"""rde-lite, fourth stage: several objects, real video.

    rdejax train rde_lite_video --workdir runs/video --init rde-lite \
        --data folder:VIDEOS@davis folder:VIDEOS@small static:CCP static:HUMANSEG static:ECSSD \
            static:COCO128 synthetic \
        --data-weights 0.42 0.1 0.14 0.1 0.1 0.06 0.08

Nine seconds a step on two CPU cores beside other work. The scale should be that of inference: 645
clips of 224 pixels (crops of a quarter of the frame or more; stopped at half of the schedule, the
rate not fallen) moved J&F on composites of 240 pixels from 57.2 to 57.6 as they are, but from 60.1
down to 52.7 enlarged twofold. The bundled weights did not see this stage.
"""

from rdejax.data.config import ClipConfig, PasteConfig, VideoConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    clip=ClipConfig(
        frames=5,
        size=320,
        objects=3,
        second_object=0.85,
        paste=0.7,
        smallest=0.1,
        largest=0.7,
        distractor=0.3,
        twin=0.15,
        speed=0.07,
        camera=0.05,
        turn=0.12,
        zoom=0.07,
        bend=0.06,
        jump=0.08,
        min_area=0.004,
    ),
    video=VideoConfig(
        gaps=(3, 2),
        phases=(0.5,),
        crop=0.15,
        frame_colour=0.02,
        min_area=0.004,
        max_area=0.7,
        keep_megabytes=1500,
        paste=PasteConfig(share=0.85, smallest=0.09, largest=0.75, speed=0.05),
    ),
    batch=2,
    steps=1800,
    loss=LossConfig(soft_iou=1.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=3e-4, trunk_lr=0.25, weight_decay=1e-3, clip_norm=1.0, warmup=60, final=0.0, ema=0.995
    ),
    save_every=25,
    log_every=10,
)

"""rde-lite, fourth stage: several objects, real video, a decoder that sees the latest masks.

    rdejax train rde_lite_video --workdir runs/video --init runs/long --init-partial \
        --data folder:VIDEOS@davis folder:VIDEOS@small static:CCP static:HUMANSEG static:ECSSD \
            static:COCO128 synthetic \
        --data-weights 0.5 0.1 0.1 0.1 0.1 0.06 0.04

Starts from the weights of `rde_lite_long`; the part of the decoder that sees the latest masks
starts at zero, where it changes nothing. Every frame is read from the memory that inference reads.
The scale is that of inference: crops of 206 pixels or more of frames of 400, seen at 256.
"""

from rdejax.data.config import ClipConfig, PasteConfig, VideoConfig
from rdejax.train.config import LossConfig, OptimizerConfig, TrainConfig

config = TrainConfig(
    system="rde-lite",
    sizes=("latest_masks=True",),
    memory_settings=("top_k=10",),
    objective="unroll",
    objective_settings=("reduce=sum", "memory=inference"),
    clip=ClipConfig(
        frames=7,
        size=256,
        objects=2,
        second_object=0.9,
        paste=0.7,
        smallest=0.1,
        largest=0.7,
        distractor=0.3,
        twin=0.25,
        speed=0.07,
        camera=0.05,
        turn=0.12,
        zoom=0.07,
        bend=0.06,
        jump=0.08,
        min_area=0.003,
    ),
    video=VideoConfig(
        gaps=(3, 2),
        phases=(0.5,),
        crop=0.15,
        shortest=400,
        frame_colour=0.02,
        min_area=0.003,
        max_area=0.7,
        keep_megabytes=1500,
        paste=PasteConfig(share=0.75, smallest=0.09, largest=0.75, lookalike=0.35, speed=0.05),
    ),
    batch=2,
    steps=650,
    loss=LossConfig(soft_iou=2.0, top_p=1.0),
    optimizer=OptimizerConfig(
        lr=1.5e-4, trunk_lr=0.25, weight_decay=1e-3, clip_norm=1.0, warmup=20, final=0.0, ema=0.99
    ),
    save_every=20,
    log_every=10,
)

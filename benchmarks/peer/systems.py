"""Systems by name: networks, and videos with a fresh memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from peer.memory import Bank, Embedding
from peer.networks import RDE, STCN, Sizes
from peer.swem import SWEM, SequentialEM
from peer.video import Video
from peer.xmem import Stores, XMem, XMemVideo


def networks(job: dict[str, Any]) -> nn.Module:
    """Of `job["system"]`, without weights."""
    sizes, memory = Sizes(**job["sizes"]), job["memory"]
    if job["system"] == "xmem":
        return XMem(sizes, job["hidden"], tuple(job["widths"]))
    if job["system"] == "swem":
        return SWEM(sizes, memory["top_l"])
    return {"stcn": STCN, "rde": RDE}[job["system"]](sizes)


def video(job: dict[str, Any], model: Any, clip: Any) -> Callable[[], Video]:
    """Makes videos before their first frame."""
    system, every, settings = job["system"], job["every"], job["memory"]
    if system == "swem":
        bases = torch.from_numpy(clip["bases"]).to(job["device"])
        rest = settings["iterations"], settings["tau"], settings["top_l"]
        return lambda: Video(model, SequentialEM(bases, *rest), every)
    if system == "xmem":
        stores = [
            settings[name]
            for name in ("top_k", "min_mid_term_frames", "max_mid_term_frames", "num_prototypes")
        ]
        return lambda: XMemVideo(model, Stores(*stores), every)
    if system == "rde":
        return lambda: Video(model, Embedding(settings["top_k"], model), every)
    return lambda: Video(model, Bank(settings["top_k"]), every)

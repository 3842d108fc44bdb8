"""Makes the checkpoints of this folder, with PyTorch 2.13: `python make_fixtures.py`.

They are tiny, but of every kind the reader meets. `expected` holds what must come out.
"""

import argparse
import collections
import os
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


class Attack:
    """Unpickled in the ordinary way, this makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("code_was_run",)


def tensors() -> dict[str, torch.Tensor]:
    """Tensors of every supported type, and views of every kind."""
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    return collections.OrderedDict(
        float=whole,
        parameter=torch.nn.Parameter(torch.linspace(-1, 1, 5)),
        half=torch.tensor([0.5, -2.25, 65504.0], dtype=torch.float16),
        bfloat16=torch.tensor([1.0, -3.140625, 1e30], dtype=torch.bfloat16),
        double=torch.tensor([[1 / 3]], dtype=torch.float64),
        long=torch.tensor([-1, 2**40]),
        int=torch.tensor([7], dtype=torch.int32),
        bool=torch.tensor([True, False]),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        scalar=torch.tensor(3),
        empty=torch.zeros(0, 3),
        transposed=whole.t(),
        columns=whole[1:3, 2:5],
        channels_last=torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    )


def training_checkpoint() -> dict:
    """A state dict among what training scripts store beside it."""
    network = torch.nn.DataParallel(
        torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    )
    with torch.no_grad():
        for i, value in enumerate(network.parameters()):
            value.copy_(torch.arange(value.numel()).reshape(value.shape) / 8 + i)
    optimizer = torch.optim.Adam(network.parameters())
    sum(p.sum() for p in network.parameters()).backward()
    optimizer.step()
    return {
        "it": 7,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "para": argparse.Namespace(lr=1e-5, stages={0, 3}, device=torch.device("cpu")),
        "loss": np.float64(0.25),
        "counts": collections.Counter("aab"),
        "rng": torch.get_rng_state()[:8],
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
    }


def main() -> None:
    """Writes the checkpoints and expected.npz."""
    for kind in ("zip", "legacy"):
        zipped = {"_use_new_zipfile_serialization": kind == "zip"}
        torch.save(tensors(), HERE / f"types_{kind}.pth", **zipped)
        torch.save(training_checkpoint(), HERE / f"training_{kind}.pth", **zipped)
        attack = {"state_dict": {"w": torch.ones(2)}, "args": Attack()}
        torch.save(attack, HERE / f"attack_{kind}.pth", **zipped)
    torch.save({"w": torch.ones(2), "x": Attack()}, HERE / "attack_inside.pth")
    torch.save({"good": torch.ones(2), "bad": torch.tensor([1, float("nan")])}, HERE / "nan.pth")
    torch.save(torch.nn.Linear(2, 2), HERE / "module.pth")
    torch.save({"w": torch.ones(2, dtype=torch.complex64)}, HERE / "complex.pth")

    arrays = {}
    for name, value in tensors().items():
        value = value.detach()
        value = value.float() if value.is_floating_point() else value
        arrays[f"types/{name}"] = value.contiguous().numpy()
    for name, value in training_checkpoint()["network"].items():
        arrays[f"training/{name.removeprefix('module.')}"] = value.numpy()
    np.savez_compressed(HERE / "expected.npz", **arrays)


if __name__ == "__main__":
    main()

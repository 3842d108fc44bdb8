"""The loop of STCN, RDE-VOS and SWEM over a video, frame by frame, as their authors describe it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def aggregate(p: Tensor) -> Tensor:
    """Soft aggregation of [o, H, W] to probabilities [o + 1, H, W]."""
    return aggregate_logits(p).softmax(0)


def aggregate_logits(p: Tensor) -> Tensor:
    """The logits of that."""
    q = torch.cat([(1 - p).prod(0, keepdim=True), p]).clamp(1e-7, 1 - 1e-7)
    return torch.log(q / (1 - q))


class Video:
    """A video in progress; frame 0 is the one with the masks.

    Args:
      model: the networks.
      memory: what is kept of the frames.
      every: every n-th frame is memorised.
    """

    def __init__(self, model: Any, memory: Any, every: int):
        self.model, self.memory, self.every = model, memory, every
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.time = 0

    def _prepared(self, frame: Tensor) -> Tensor:
        """[1, 3, H, W] of uint8 [h, w, 3]: normalised, padded to multiples of 16."""
        x = frame.to(self.device).permute(2, 0, 1)[None].float() / 255
        mean, std = (torch.tensor(v, device=self.device)[None, :, None, None] for v in (MEAN, STD))
        height, width = frame.shape[:2]
        down, right = -height % 16, -width % 16
        self.border = right // 2, right - right // 2, down // 2, down - down // 2
        x = F.pad((x - mean) / std, self.border).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def _first(self, masks: Tensor) -> Tensor:
        return aggregate(F.pad(masks.to(self.device), self.border))

    def _value(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        masks = masks.to(self.dtype)
        return self.model.value_encoder(image, f16, masks, masks.sum(0, keepdim=True) - masks)

    def _labels(self, probs: Tensor) -> Tensor:
        left, right, top, bottom = self.border
        height, width = probs.shape[1:]
        return probs[:, top : height - bottom, left : width - right].argmax(0).to(torch.uint8)

    def start(self, frame: Tensor, masks: Tensor) -> None:
        """The first frame uint8 [h, w, 3] and its masks float [o, h, w], one-hot."""
        image = self._prepared(frame)
        f16 = self.model.key_encoder(image)[2]
        probs = self._first(masks)
        self.memory.start(self.model.key_proj(f16), self._value(image, f16, probs[1:]), probs)

    def step(self, frame: Tensor) -> Tensor:
        """Labels uint8 [h, w] of the next frame, on the device."""
        self.time += 1
        model, image = self.model, self._prepared(frame)
        f4, f8, f16 = model.key_encoder(image)
        key, own = model.key_proj(f16), model.key_comp(f16)
        readout = self.memory.read(key).to(self.dtype)
        own, f8, f4 = (f.expand(len(readout), -1, -1, -1) for f in (own, f8, f4))
        logits = model.decoder(model.decoder_input(readout, own), f8, f4)
        probs = aggregate(torch.sigmoid(logits.float()))
        if self.time % self.every == 0:
            self.memory.write(key, self._value(image, f16, probs[1:]), probs)
        return self._labels(probs)

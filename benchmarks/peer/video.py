"""The loop of RDE-VOS over a video, frame by frame, as its authors describe it (section 3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from peer.networks import RDE

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(query: Tensor, keys: list[Tensor], values: list[Tensor], top_k: int) -> Tensor:
    """Readout [o, cv, h, w] of a bank of keys [1, ck, h, w] and values [o, cv, h, w].

    Affinity 2 q.k - |k|^2 over sqrt(ck), the `top_k` largest of each query position, softmax.
    """
    key = torch.cat([k.flatten(2) for k in keys], dim=2)[0]  # [ck, m]
    value = torch.cat([v.flatten(2) for v in values], dim=2)  # [o, cv, m]
    q = query.flatten(2)[0]
    affinity = (2 * key.T @ q - (key * key).sum(0)[:, None]) / math.sqrt(len(key))  # [m, q]
    best, index = affinity.topk(min(top_k, len(affinity)), dim=0)
    weights = torch.zeros_like(affinity).scatter_(0, index, best.softmax(0))
    return (value @ weights.to(value.dtype)).unflatten(2, query.shape[2:])


def aggregate(p: Tensor) -> Tensor:
    """Soft aggregation of [o, H, W] to probabilities [o + 1, H, W]."""
    q = torch.cat([(1 - p).prod(0, keepdim=True), p]).clamp(1e-7, 1 - 1e-7)
    return torch.log(q / (1 - q)).softmax(0)


class Video:
    """A video in progress; frame 0 is the one with the masks.

    Args:
      model: the networks.
      every: every n-th frame is memorised.
      top_k: memory positions kept for each query position.
    """

    def __init__(self, model: RDE, every: int = 3, top_k: int = 40):
        self.model, self.every, self.top_k = model, every, top_k
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

    def _value(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        masks = masks.to(self.dtype)
        return self.model.value_encoder(image, f16, masks, masks.sum(0, keepdim=True) - masks)

    def start(self, frame: Tensor, masks: Tensor) -> None:
        """The first frame uint8 [h, w, 3] and its masks float [o, h, w], one-hot."""
        image = self._prepared(frame)
        _, _, f16 = self.model.key_encoder(image)
        probs = aggregate(F.pad(masks.to(self.device), self.border))
        key, value = self.model.key_proj(f16), self._value(image, f16, probs[1:])
        # The embedding and the latest frame, before there are any, are the first frame: it is read
        # twice until the first update.
        self.first = self.embedding = self.latest = (key, value)
        self.updated = False

    def step(self, frame: Tensor) -> Tensor:
        """Labels uint8 [h, w] of the next frame, on the device."""
        self.time += 1
        model = self.model
        image = self._prepared(frame)
        f4, f8, f16 = model.key_encoder(image)
        key, own = model.key_proj(f16), model.key_comp(f16)
        bank = [self.first, self.first]
        bank += [self.latest, self.embedding] if self.updated else []
        keys, values = (list(part) for part in zip(*bank, strict=True))
        readout = read(key.float(), [k.float() for k in keys], values, self.top_k).to(self.dtype)
        x = torch.cat([readout, own.expand(len(readout), -1, -1, -1)], dim=1)
        f8, f4 = (f.expand(len(readout), -1, -1, -1) for f in (f8, f4))
        probs = aggregate(torch.sigmoid(model.decoder(x, f8, f4).float()))
        if self.time % self.every == 0:
            value = self._value(image, f16, probs[1:])
            old_key, old_value = self.embedding
            memory = model.memory
            self.embedding = (
                memory.compress_key(old_key, key),
                memory.compress_value(old_value, value),
            )
            self.latest, self.updated = (key, value), True
        left, right, top, bottom = self.border
        height, width = probs.shape[1:]
        return probs[:, top : height - bottom, left : width - right].argmax(0).to(torch.uint8)

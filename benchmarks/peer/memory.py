"""The memories of STCN and RDE-VOS: what is kept of a video's frames, and how it is read."""

import math

import torch
from torch import Tensor

from peer.networks import RDE


def attention(affinity: Tensor, top_k: int | None) -> Tensor:
    """Softmax of [m, q] over m, over the `top_k` largest alone where that is a number."""
    if top_k is None:
        return affinity.softmax(0)
    best, index = affinity.topk(min(top_k, len(affinity)), dim=0)
    return torch.zeros_like(affinity).scatter_(0, index, best.softmax(0))


def read(query: Tensor, key: Tensor, value: Tensor, top_k: int | None) -> Tensor:
    """Readout [o, cv, h, w] of keys [ck, m] and values [o, cv, m] for a query [1, ck, h, w].

    Affinity (2 q.k - |k|^2) / sqrt(ck).
    """
    q = query.flatten(2)[0].float()
    key = key.float()
    affinity = (2 * key.T @ q - (key * key).sum(0)[:, None]) / math.sqrt(len(key))
    weights = attention(affinity, top_k).to(value.dtype)
    return (value @ weights).unflatten(2, query.shape[2:])


class Bank:
    """Every memorised frame is kept (STCN)."""

    def __init__(self, top_k: int | None):
        self.top_k = top_k

    def start(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """The first frame: key [1, ck, h, w], value [o, cv, h, w], probs [o + 1, H, W]."""
        del probs
        self.key, self.value = key.flatten(2)[0], value.flatten(2)

    def write(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """One more frame."""
        del probs
        self.key = torch.cat([self.key, key.flatten(2)[0]], dim=1)
        self.value = torch.cat([self.value, value.flatten(2)], dim=2)

    def read(self, query: Tensor) -> Tensor:
        """Readout of a query key [1, ck, h, w]."""
        return read(query, self.key, self.value, self.top_k)


class Embedding:
    """Twice the first frame, the latest one and the recurrent dynamic embedding (RDE-VOS)."""

    def __init__(self, top_k: int | None, model: RDE):
        self.top_k, self.model = top_k, model

    def start(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """See `Bank`; the first frame is read twice until the first update."""
        del probs
        self.first = self.latest = self.embedding = (key, value)
        self.entries = [self.first, self.first]

    def write(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """Moves the embedding on by one frame, which becomes the latest."""
        del probs
        old_key, old_value = self.embedding
        memory = self.model.memory
        self.embedding = memory.compress_key(old_key, key), memory.compress_value(old_value, value)
        self.latest = (key, value)
        self.entries = [self.first, self.first, self.latest, self.embedding]

    def read(self, query: Tensor) -> Tensor:
        """See `Bank`."""
        keys, values = zip(*self.entries, strict=True)
        key = torch.cat([k.flatten(2)[0] for k in keys], dim=1)
        return read(query, key, torch.cat([v.flatten(2) for v in values], dim=2), self.top_k)

"""The training step of RDE-VOS, stage 3 (section 3.4; frames weighted as in the public code)."""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from peer.memory import read
from peer.networks import RDE
from peer.video import MEAN, STD, aggregate_logits


@dataclasses.dataclass(frozen=True)
class Loss:
    """Weights of L_UG and L_MC; the schedule of bootstrapping."""

    guidance: float
    consistency: float
    top_p: float
    start: int
    end: int

    def share(self, step: int) -> float:
        """Of the hardest pixels."""
        progress = min(max((self.end - step) / (self.end - self.start), 0.0), 1.0)
        return self.top_p + (1 - self.top_p) * progress


@dataclasses.dataclass
class Features:
    """Of one frame, [1, c, h, w] each."""

    image: Tensor
    f4: Tensor
    f8: Tensor
    f16: Tensor
    key: Tensor
    own: Tensor


def cross_entropy(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """Mean over the hardest pixels."""
    each = F.cross_entropy(logits[None], labels[None], reduction="none").flatten()
    return each.mean() if share >= 1 else each.topk(int(len(each) * share))[0].mean()


def channel_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Of [o, c, h, w], summed over objects."""
    log_s, log_t = student.log_softmax(1), teacher.log_softmax(1)
    return (log_t.exp() * (log_t - log_s)).mean((1, 2, 3)).sum()


class ClipRun:
    """One clip: frames uint8 [t, H, W, 3], labels uint8 [t, H, W], perturbed masks [o, H, W]."""

    def __init__(self, model: RDE, clip: dict[str, Tensor], loss: Loss):
        self.model, self.clip, self.loss = model, clip, loss
        images = clip["frames"].permute(0, 3, 1, 2).float() / 255
        mean, std = (
            torch.tensor(v, device=images.device)[None, :, None, None] for v in (MEAN, STD)
        )
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        f4, f8, f16 = model.key_encoder(images)
        parts = images, f4, f8, f16, model.key_proj(f16), model.key_comp(f16)
        self.features = [Features(*(part[t : t + 1] for part in parts)) for t in range(len(images))]

    def value(self, now: Features, masks: Tensor) -> Tensor:
        """Values [o, cv, h, w] of a frame with these masks [o, H, W]."""
        others = masks.sum(0, keepdim=True) - masks
        return self.model.value_encoder(now.image, now.f16, masks, others)

    def seen(self, now: Features, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """Decoder input of a frame read from a bank."""
        key = torch.cat([k.flatten(2)[0] for k in keys], dim=1)
        readout = read(now.key, key, torch.cat([v.flatten(2) for v in values], dim=2), None)
        return self.model.decoder_input(readout, now.own.expand(len(readout), -1, -1, -1))

    def logits(self, now: Features, x: Tensor) -> Tensor:
        """Aggregated logits [o + 1, H, W] of a decoder input."""
        f8, f4 = (f.expand(len(x), -1, -1, -1) for f in (now.f8, now.f4))
        p = torch.sigmoid(self.model.decoder(x, f8, f4))
        return aggregate_logits(p * self.clip["valid"][:, None, None])

    def total(self, step: int) -> Tensor:
        """The loss."""
        model, labels = self.model, self.clip["labels"].long()
        first, frames = self.features[0], len(self.features)
        given = self.value(first, self.clip["perturbed"].float())
        ids = torch.arange(1, len(given) + 1, device=given.device)[:, None, None]
        true = self.value(first, (labels[0] == ids).float())
        total = self.loss.consistency * channel_kl(given, true)
        keys, values = [first.key], [given]
        own_key, own_value = first.key, given
        for t, now in enumerate(self.features[1:], 1):
            last, teacher = t == frames - 1, self.seen(now, keys, values)
            logits = None if last else self.logits(now, teacher)
            scored = logits
            if t % 2 == 0:
                student = self.seen(now, [own_key], [own_value])
                scored = self.logits(now, student)
                total = total + self.loss.guidance * channel_kl(student, teacher)
            if logits is not None:
                value = self.value(now, logits.softmax(0)[1:])
                keys.append(now.key)
                values.append(value)
                own_key = model.memory.compress_key(own_key, now.key)
                own_value = model.memory.compress_value(own_value, value)
            entropy = cross_entropy(scored, labels[t], self.loss.share(step))
            total = total + 0.5 ** (frames - t) * entropy
        return total


class Training:
    """A run: networks, optimiser, steps done."""

    def __init__(self, model: RDE, loss: Loss, rate: float, decay: float):
        self.model, self.loss, self.done = model, loss, 0
        self.optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)

    def step(self, batch: dict[str, Any]) -> float:
        """Loss of a batch, whose gradients change the weights."""
        count = len(batch["frames"])
        clips = [{name: part[i] for name, part in batch.items()} for i in range(count)]
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for clip in clips:
            loss = ClipRun(self.model, clip, self.loss).total(self.done) / count
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        self.done += 1
        return total

"""XMem (Cheng and Schwing, ECCV 2022): its networks, its memories and its step."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peer.memory import attention
from peer.networks import CBAM, Refinement, ResBlock, ResNet, Sizes, ValueEncoder, conv, enlarged
from peer.video import Video, aggregate


class Anisotropy(nn.Module):
    """Shrinkage and selection of keys."""

    def __init__(self, cin: int, keys: int):
        super().__init__()
        self.shrinkage, self.selection = conv(cin, 1, 3), conv(cin, keys, 3)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor]:
        return self.shrinkage(f16) ** 2 + 1, torch.sigmoid(self.selection(f16))


class SensoryUpdate(nn.Module):
    """Gated update of the sensory memory by an input."""

    def __init__(self, cin: int, hidden: int):
        super().__init__()
        self.transform = conv(cin + hidden, 3 * hidden, 3)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        forget, update, new = self.transform(torch.cat([x, hidden], dim=1)).chunk(3, dim=1)
        forget, update = torch.sigmoid(forget), torch.sigmoid(update)
        return forget * hidden * (1 - update) + update * torch.tanh(new)


class HiddenUpdate(nn.Module):
    """The decoder's update of the sensory memory, from its features of three strides."""

    def __init__(self, widths: tuple[int, int, int], hidden: int):
        super().__init__()
        w16, middle, w4 = widths
        self.g16_conv, self.g8_conv = conv(w16, middle, 1), conv(middle, middle, 1)
        self.g4_conv, self.gate = conv(w4 + 1, middle, 1), SensoryUpdate(middle, hidden)

    def forward(self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, hidden: Tensor):
        fine = F.avg_pool2d(torch.cat([g4, logits], dim=1), 4)
        x = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2)) + self.g4_conv(fine)
        return self.gate(x, hidden)


class Fuser(nn.Module):
    """block2(y + CBAM(y)), y = block1(x)."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.block1, self.attention = ResBlock(cin, cout), CBAM(cout)
        self.block2 = ResBlock(cout, cout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block1(x)
        return self.block2(y + self.attention(y))


class XMemValueEncoder(ValueEncoder):
    """Takes the key encoder's features first, and has the deep update."""

    def __init__(self, key_features: int, values: int, hidden: int):
        super().__init__(key_features, values, bias=False)
        self.deep_update = SensoryUpdate(values, hidden)

    def fused(self, x: Tensor, f16: Tensor) -> Tensor:
        """See `ValueEncoder`."""
        return super().fused(f16, x)


class XMemDecoder(Refinement):
    """Features of stride 16, 8 and 4, and logits of stride 4."""

    def __init__(self, sizes: Sizes, hidden: int, widths: tuple[int, int, int]):
        c4, c8, c16 = sizes.features
        super().__init__((c8, c4), widths)
        self.fuser = Fuser(c16 + sizes.values + hidden, widths[0])
        self.hidden_update = HiddenUpdate(widths, hidden)

    def forward(self, x: Tensor, f8: Tensor, f4: Tensor) -> tuple[Tensor, ...]:
        g16 = self.fuser(x)
        return g16, *self.refined(g16, f8, f4)


class XMem(nn.Module):
    """All networks of XMem."""

    def __init__(self, sizes: Sizes, hidden: int, widths: tuple[int, int, int]):
        super().__init__()
        self.hidden, c16 = hidden, sizes.features[2]
        self.key_encoder = ResNet(sizes.depth)
        self.key_proj, self.anisotropy = conv(c16, sizes.keys, 3), Anisotropy(c16, sizes.keys)
        self.value_encoder = XMemValueEncoder(c16, sizes.values, hidden)
        self.decoder = XMemDecoder(sizes, hidden, widths)


def similarity(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    """-s_m sum_c e_qc (k_mc - k_qc)^2 / sqrt(ck), [m, q] from [ck, m], [m] and twice [ck, q]."""
    distance = (key * key).T @ selection - 2 * key.T @ (selection * query)
    distance = distance + (selection * query * query).sum(0)
    return -distance * shrinkage[:, None] / math.sqrt(len(key))


class Stores:
    """Working memory of recent frames, of which prototypes go to the long-term memory.

    The long-term memory forgets nothing: clips are too short to fill it.
    """

    def __init__(self, top_k: int, least_frames: int, most_frames: int, prototypes: int):
        self.top_k, self.prototypes = top_k, prototypes
        self.least_frames, self.most_frames = least_frames, most_frames
        self.long: tuple[Tensor, Tensor, Tensor] | None = None

    def start(self, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor) -> None:
        """Key, shrinkage, selection [1, ., h, w] and values [o, cv, h, w] of the first frame."""
        self.frame = key[0, 0].numel()
        self.key, self.shrinkage = key.flatten(2)[0].float(), shrinkage.flatten().float()
        self.selection, self.value = selection.flatten(2)[0].float(), value.flatten(2)
        self.use, self.life = torch.zeros_like(self.shrinkage), torch.zeros_like(self.shrinkage)

    def write(self, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor) -> None:
        """One more frame; a full working memory is consolidated."""
        new = torch.zeros(self.frame, device=self.key.device)
        self.key = torch.cat([self.key, key.flatten(2)[0].float()], dim=1)
        self.shrinkage = torch.cat([self.shrinkage, shrinkage.flatten().float()])
        self.selection = torch.cat([self.selection, selection.flatten(2)[0].float()], dim=1)
        self.value = torch.cat([self.value, value.flatten(2)], dim=2)
        self.use, self.life = torch.cat([self.use, new]), torch.cat([self.life, new])
        if self.key.shape[1] == self.most_frames * self.frame:
            self._consolidate()

    def _consolidate(self) -> None:
        taken = slice(self.frame, self.frame * (self.most_frames - self.least_frames + 1))
        key, shrinkage, value = self.key[:, taken], self.shrinkage[taken], self.value[:, :, taken]
        best = (self.use[taken] / self.life[taken].clamp_min(1e-7)).topk(self.prototypes)[1]
        weights = similarity(key, shrinkage, key[:, best], self.selection[:, taken][:, best])
        weights = weights.softmax(0)
        new = key[:, best], shrinkage @ weights, value @ weights.to(value.dtype)
        self.long = new if self.long is None else _joined(self.long, new)
        for name in ("key", "shrinkage", "selection", "value", "use", "life"):
            x = getattr(self, name)
            kept = torch.cat([x[..., : taken.start], x[..., taken.stop :]], dim=-1)
            setattr(self, name, kept)

    def read(self, query: Tensor, selection: Tensor) -> Tensor:
        """Readout [o, cv, h, w]; counts how much of the working memory is used."""
        held = self.key, self.shrinkage, self.value
        key, shrinkage, value = held if self.long is None else _joined(self.long, held)
        q, e = query.flatten(2)[0].float(), selection.flatten(2)[0].float()
        weights = attention(similarity(key, shrinkage, q, e), self.top_k)
        self.use = self.use + weights.sum(1)[-len(self.use) :]
        self.life = self.life + 1
        return (value @ weights.to(value.dtype)).unflatten(2, query.shape[2:])


def _joined(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    key, shrinkage, value = (torch.cat([x, y], dim=-1) for x, y in zip(a, b, strict=True))
    return key, shrinkage, value


class XMemVideo(Video):
    """XMem's step: the decoder reads and updates a sensory memory."""

    def start(self, frame: Tensor, masks: Tensor) -> None:
        """See `Video`."""
        image = self._prepared(frame)
        f16 = self.model.key_encoder(image)[2]
        value = self._value(image, f16, self._first(masks)[1:])
        hidden = value.new_zeros(len(value), self.model.hidden, *value.shape[2:])
        self.hidden = self.model.value_encoder.deep_update(value, hidden)
        self.memory.start(self.model.key_proj(f16), *self.model.anisotropy(f16), value)

    def step(self, frame: Tensor) -> Tensor:
        """See `Video`."""
        self.time += 1
        model, image = self.model, self._prepared(frame)
        f4, f8, f16 = model.key_encoder(image)
        key, (shrinkage, selection) = model.key_proj(f16), model.anisotropy(f16)
        readout = self.memory.read(key, selection).to(self.dtype)
        each = [f.expand(len(readout), -1, -1, -1) for f in (f16, f8, f4)]
        x = torch.cat([each[0], readout, self.hidden], dim=1)
        g16, g8, g4, logits = model.decoder(x, *each[1:])
        probs = aggregate(torch.sigmoid(enlarged(logits).float()))
        if self.time % self.every == 0:
            value = self._value(image, f16, probs[1:])
            self.memory.write(key, shrinkage, selection, value)
            self.hidden = model.value_encoder.deep_update(value, self.hidden)
        else:
            self.hidden = model.decoder.hidden_update(g16, g8, g4, logits, self.hidden)
        return self._labels(probs)

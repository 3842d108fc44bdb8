"""SWEM (Lin et al., CVPR 2022): bases by sequential weighted EM, and a gated fusion."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peer.networks import STCN, Decoder, Sizes, conv

EPS = 1e-6


class Bases(NamedTuple):
    """Of each object, background and foreground apart: [o, 2, ck, k], [o, 2, cv, k], [o, 2, k]."""

    kappa: Tensor
    nu: Tensor
    zeta: Tensor


def unit(x: Tensor, dim: int) -> Tensor:
    """Of length 1."""
    return x / (x.norm(dim=dim, keepdim=True) + EPS)


class SequentialEM:
    """Bases of the first frame, and those of all frames so far.

    Args:
      initial: bases [o, 2, ck, k] that EM starts from.
      iterations: R.
      tau: temperature.
      top_l: L.
    """

    def __init__(self, initial: Tensor, iterations: int, tau: float, top_l: int):
        self.initial, self.iterations, self.tau, self.top_l = initial, iterations, tau, top_l

    def start(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """See `memory.Bank`."""
        o, _, _, k = self.initial.shape
        nu = self.initial.new_zeros(o, 2, value.shape[1], k)
        old = Bases(unit(self.initial, 2), nu, self.initial.new_full((o, 2, k), EPS))
        self.first = self.update = self._absorbed(old, key, value, probs)
        self.sets = [self.first]

    def write(self, key: Tensor, value: Tensor, probs: Tensor) -> None:
        """See `memory.Bank`."""
        self.update = self._absorbed(self.update, key, value, probs)
        self.sets = [self.first, self.update]

    def _absorbed(self, old: Bases, key: Tensor, value: Tensor, probs: Tensor) -> Bases:
        x = key.flatten(2)[0].float()  # [ck, p]
        masks = self._weights(probs, key.shape[2:])
        weights, kappa, x_unit = masks, old.kappa, unit(x, 0)
        for i in range(self.iterations):
            if i:  # W: the share of the other class
                evidence = torch.logsumexp(x_unit.T @ unit(kappa, 2) / self.tau, dim=3)
                weights = masks * (1 - evidence.softmax(1))
            z = (x.T @ unit(kappa, 2) / self.tau).softmax(3) * weights[..., None]  # E: [o, 2, p, k]
            zeta = old.zeta + z.sum(2)  # M
            kappa = (old.zeta[:, :, None] * old.kappa + x @ z) / zeta[:, :, None]
        v = value.flatten(2).float()[:, None]
        nu = (old.zeta[:, :, None] * old.nu + v @ z) / zeta[:, :, None]
        return Bases(kappa, nu, zeta)

    @staticmethod
    def _weights(probs: Tensor, size: torch.Size) -> Tensor:
        """[o, 2, p]: hard (nearest) times soft (bilinear) masks."""
        hard = F.one_hot(probs.argmax(0), len(probs)).permute(2, 0, 1)[1:].float()
        hard = F.interpolate(hard[None], size, mode="nearest")[0].flatten(1)
        soft = F.interpolate(probs[None, 1:], size, mode="bilinear", align_corners=False)
        soft = soft[0].flatten(1)
        return torch.stack([(1 - hard) * (1 - soft), hard * soft], dim=1)

    def read(self, query: Tensor) -> Tensor:
        """Values and permutation-invariant features [o, cv + 2 L, h, w]."""
        kappa = torch.cat([bases.kappa for bases in self.sets], dim=3)
        nu = torch.cat([bases.nu for bases in self.sets], dim=3)
        q = unit(query.flatten(2)[0].float(), 0)
        e = torch.exp(unit(kappa, 2).transpose(2, 3) @ q / self.tau)  # [o, 2, k, q]
        values = (nu @ e).sum(1) / e.sum((1, 2))[:, None]
        background, object_ = e.topk(self.top_l, dim=2)[0].cumsum(2).unbind(1)
        share = background / (background + object_)
        return torch.cat([values, share, 1 - share], dim=1).unflatten(2, query.shape[2:])


class Fusion(nn.Module):
    """conv(y) * sigmoid(conv'(y)), y = [value, the query's own value, features]."""

    def __init__(self, values: int, features: int):
        super().__init__()
        self.layer = conv(2 * values + features, values, 3)
        self.gate = conv(2 * values + features, values, 3)

    def forward(self, readout: Tensor, own: Tensor) -> Tensor:
        values = own.shape[1]
        y = torch.cat([readout[:, :values], own, readout[:, values:]], dim=1)
        return self.layer(y) * torch.sigmoid(self.gate(y))


class SWEM(STCN):
    """STCN's networks with the fusion before the decoder."""

    def __init__(self, sizes: Sizes, top_l: int):
        super().__init__(sizes)
        c4, c8, _ = sizes.features
        self.fusion = Fusion(sizes.values, 2 * top_l)
        self.decoder = Decoder(sizes.values, (c8, c4))

    def decoder_input(self, readout: Tensor, own: Tensor) -> Tensor:
        """See `STCN`."""
        return self.fusion(readout, own)

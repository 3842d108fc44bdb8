"""The body of STCN (Cheng et al., NeurIPS 2021) and what RDE-VOS (Li et al., CVPR 2022) adds.

Arrays are NCHW. Modules are called what they are called in this library, so that weights go over
by name (`load_weights`).
"""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn


def conv(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1, bias: bool = True):
    """A convolution that keeps the size at stride 1."""
    padding = kernel // 2 * dilation
    return nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=bias)


class Projection(nn.Module):
    """Skip path of a ResNet block that changes width or size."""

    def __init__(self, cin: int, cout: int, stride: int, bias: bool):
        super().__init__()
        self.conv, self.bn = conv(cin, cout, 1, stride, bias=bias), nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Block(nn.Module):
    """Residual block: two 3x3 as in ResNet-18, or 1x1, 3x3 and a wider 1x1 as in ResNet-50."""

    def __init__(self, cin: int, width: int, stride: int, bias: bool, expansion: int):
        super().__init__()
        cout = width * expansion
        kernels = [(cin, width, 3, stride), (width, width, 3, 1)]
        if expansion > 1:
            kernels = [(cin, width, 1, 1), (width, width, 3, stride), (width, cout, 1, 1)]
        self.count = len(kernels)
        for i, (a, b, kernel, step) in enumerate(kernels, 1):
            setattr(self, f"conv{i}", conv(a, b, kernel, step, bias=bias))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        same = stride == 1 and cin == cout
        self.downsample = None if same else Projection(cin, cout, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet-18 or -50 up to stride 16."""

    def __init__(self, depth: int, channels: int = 3, bias: bool = False):
        super().__init__()
        expansion, counts = {18: (1, (2, 2, 2)), 50: (4, (3, 4, 6))}[depth]
        self.conv1, self.bn1 = conv(channels, 64, 7, 2, bias=bias), nn.BatchNorm2d(64)
        cin = 64
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(cin, 64 * 2**i, stride, bias, expansion))
                cin = 64 * 2**i * expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        f4 = self.layer1(x)
        f8 = self.layer2(f4)
        return f4, f8, self.layer3(f8)


class ResBlock(nn.Module):
    """downsample(x) + conv2(relu(conv1(relu(x))))."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.downsample = None if cin == cout else conv(cin, cout, 3)
        self.conv1, self.conv2 = conv(cin, cout, 3), conv(cout, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        r = self.conv2(F.relu(self.conv1(F.relu(x))))
        return (x if self.downsample is None else self.downsample(x)) + r


class CBAM(nn.Module):
    """A gate for each channel, then one for each position."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.mlp1 = nn.Linear(channels, channels // reduction)
        self.mlp2 = nn.Linear(channels // reduction, channels)
        self.spatial = conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))])
        gate = self.mlp2(F.relu(self.mlp1(pooled))).sum(0)
        x = x * torch.sigmoid(gate)[:, :, None, None]
        ends = torch.stack([x.amax(1), x.mean(1)], dim=1)
        return x * torch.sigmoid(self.spatial(ends))


class ValueEncoder(nn.Module):
    """Values of objects from image, mask and the other objects' masks."""

    def __init__(self, key_features: int, values: int, bias: bool = True):
        super().__init__()
        self.trunk = ResNet(18, 5, bias=bias)
        self.block1 = ResBlock(256 + key_features, values)
        self.attention = CBAM(values)
        self.block2 = ResBlock(values, values)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        """[o, cv, h, w] from [1, 3, H, W], [1, c16, h, w] and twice [o, H, W]."""
        each = image.expand(len(masks), -1, -1, -1)
        x = self.trunk(torch.cat([each, masks[:, None], others[:, None]], dim=1))[2]
        return self.fused(x, f16.expand(len(masks), -1, -1, -1))

    def fused(self, x: Tensor, f16: Tensor) -> Tensor:
        """Values from the ResNet's features and the key encoder's."""
        y = self.block1(torch.cat([x, f16], dim=1))
        return self.block2(y + self.attention(y))


class Upsample(nn.Module):
    """One step of the decoder to a finer stride."""

    def __init__(self, skip: int, cin: int, cout: int):
        super().__init__()
        self.skip_conv, self.out_conv = conv(skip, cin, 3), ResBlock(cin, cout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
        return self.out_conv(x + self.skip_conv(skip))


class Refinement(nn.Module):
    """From features of stride 16 to those of stride 8 and 4, and one logit for each pixel."""

    def __init__(self, skips: tuple[int, int], widths: tuple[int, int, int] = (512, 256, 256)):
        super().__init__()
        (c8, c4), (w16, w8, w4) = skips, widths
        self.up_16_8, self.up_8_4 = Upsample(c8, w16, w8), Upsample(c4, w8, w4)
        self.pred = conv(w4, 1, 3)

    def refined(self, g16: Tensor, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of stride 8 and 4, and logits of stride 4."""
        g8 = self.up_16_8(g16, f8)
        g4 = self.up_8_4(g8, f4)
        return g8, g4, self.pred(F.relu(g4))


class Decoder(Refinement):
    """Logits [o, H, W] of the objects."""

    def __init__(self, cin: int, skips: tuple[int, int]):
        super().__init__(skips)
        self.compress = ResBlock(cin, 512)

    def forward(self, x: Tensor, f8: Tensor, f4: Tensor) -> Tensor:
        return enlarged(self.refined(self.compress(x), f8, f4)[2])


def enlarged(logits: Tensor) -> Tensor:
    """[n, H, W] of [n, 1, H / 4, W / 4]."""
    return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


class NonLocal(nn.Module):
    """x + W(theta(x)^T phi(x) g(x) / N) over the positions of both times (equation 2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.theta, self.phi, self.g = (conv(channels, channels // 2, 1) for _ in range(3))
        self.out = conv(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, c, h, w] -> the same."""
        n, t, c, h, w = x.shape
        flat = x.flatten(0, 1)
        phi, g = (F.max_pool2d(part(flat), 2).unflatten(0, (n, t)) for part in (self.phi, self.g))
        phi, g = (part.transpose(1, 2).flatten(2) for part in (phi, g))  # [n, c/2, positions]
        mixed = phi @ g.transpose(1, 2) / g.shape[2]
        theta = self.theta(flat).unflatten(0, (n, t)).transpose(1, 2).flatten(2)
        y = (mixed.transpose(1, 2) @ theta).unflatten(2, (t, h, w)).transpose(1, 2)
        return x + self.out(y.flatten(0, 1)).unflatten(0, (n, t))


class ASPP(nn.Module):
    """A 1x1 and three dilated 3x3 branches, joined by a 3x3."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 4
        dilated = [conv(channels, inner, 3, dilation=d, bias=False) for d in (2, 4, 6)]
        self.branches = nn.ModuleList([conv(channels, inner, 1, bias=False), *dilated])
        self.join = conv(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.join(torch.cat([F.relu(b(x)) for b in self.branches], dim=1)))


class Compressor(nn.Module):
    """SAM: two embeddings become one (section 3.2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.non_local, self.aspp = NonLocal(channels), ASPP(channels)
        self.squeeze = conv(2 * channels, channels, 3)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        x = self.non_local(torch.stack([old, new], dim=1))
        x = x + self.aspp(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.squeeze(x.flatten(1, 2))


class Memory(nn.Module):
    """The compressors of keys and values."""

    def __init__(self, keys: int, values: int):
        super().__init__()
        self.compress_key, self.compress_value = Compressor(keys), Compressor(values)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Depth of the key encoder, widths of keys and values; the published ones of RDE and STCN."""

    depth: int = 50
    keys: int = 64
    values: int = 512

    @property
    def features(self) -> tuple[int, int, int]:
        """Widths of the key encoder's features of stride 4, 8 and 16."""
        expansion = 4 if self.depth == 50 else 1
        return 64 * expansion, 128 * expansion, 256 * expansion


class STCN(nn.Module):
    """The networks of STCN."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        c4, c8, c16 = sizes.features
        self.key_encoder = ResNet(sizes.depth)
        self.key_proj = conv(c16, sizes.keys, 3)
        self.key_comp = conv(c16, sizes.values, 3)
        self.value_encoder = ValueEncoder(c16, sizes.values)
        self.decoder = Decoder(2 * sizes.values, (c8, c4))

    def decoder_input(self, readout: Tensor, own: Tensor) -> Tensor:
        """What the decoder takes of every object."""
        return torch.cat([readout, own], dim=1)


class RDE(STCN):
    """All networks of RDE-VOS."""

    def __init__(self, sizes: Sizes):
        super().__init__(sizes)
        self.memory = Memory(sizes.keys, sizes.values)


_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills the networks with a weights file of this library; every weight must find its place."""
    state = {}
    for name, array in load_file(path).items():
        *owner, last = name.split("/")
        if last == "kernel":
            array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T
        state[".".join([*owner, _NAMES.get(last, last)])] = array.float().contiguous()
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise SystemExit(f"{path}: missing {missing[:3]}, unexpected {unexpected[:3]}")

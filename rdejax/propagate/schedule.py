"""Which frames are computed together, and how many at a time."""

import dataclasses
from collections.abc import Callable

import jax

# Frames read and decoded as one batch on accelerators, where memorising is rarer than that.
LONGEST_BLOCK = 8
# Frames per compiled call, where that many fit: enough for several blocks.
CPU_CHUNK = 6
ACCELERATOR_CHUNK = 48
# A chunk's source frames take at most this many bytes.
_CHUNK_BYTES = 256 << 20
# Pixels of a chunk as the networks see it, for its features are kept: some 130 bytes a pixel.
_CPU_PIXELS = 3 << 20
_ACCELERATOR_PIXELS = 24 << 20
# Pixels encoded at once on accelerators.
_ACCELERATOR_ENCODED = 24 << 20


@dataclasses.dataclass(frozen=True)
class Block:
    """Frames that share a memory.

    Attributes:
      length: how many; none in blocks that fill up a call.
      memorize: whether the last of them is memorised.
    """

    length: int
    memorize: bool


def next_blocks(
    memorizes: Callable[[int], bool], time: int, left: int, *, longest: int, most: int
) -> list[Block]:
    """The next blocks: each ends with a memorised frame, at `longest`, or with the frames at hand.

    Args:
      memorizes: whether the frame of that number is memorised.
      time: number of the next frame.
      left: frames at hand, 1 or more.
      longest: most frames in a block.
      most: most blocks.
    """
    blocks: list[Block] = []
    length = 0
    for now in range(time, time + left):
        length += 1
        memorize = memorizes(now)
        if memorize or length == longest or now == time + left - 1:
            blocks.append(Block(length, memorize))
            length = 0
            if len(blocks) == most:
                break
    return blocks


def frames_per_call(
    chunk: int | None, every: int, size: tuple[int, int], inner: tuple[int, int]
) -> int:
    """Frames per compiled call: about `chunk`, at most what fits, a multiple of `every` if it can.

    Args:
      chunk: frames wanted; None: a few on CPUs, where more bring nothing, many on accelerators,
        fewer of large ones.
      every: interval of memorising; blocks of that many frames are computed together.
      size: (H, W) of the source's frames.
      inner: (H, W) of the frames as the networks see them.
    """
    if chunk is None:
        usual, pixels = (
            (CPU_CHUNK, _CPU_PIXELS) if _on_cpu() else (ACCELERATOR_CHUNK, _ACCELERATOR_PIXELS)
        )
        # Less than a block would be filled up to one.
        block = longest_block(every)
        chunk = max(block, min(max(usual, block), pixels // (inner[0] * inner[1])))
    chunk = max(1, min(chunk, _CHUNK_BYTES // (size[0] * size[1] * 3)))
    return chunk // every * every or chunk


def encoded_at_once(size: tuple[int, int]) -> int:
    """Frames of (H, W), as the networks see them, that are encoded as one batch.

    One on CPUs, where features of more leave the cache before they are used.
    """
    return 1 if _on_cpu() else max(1, _ACCELERATOR_ENCODED // (size[0] * size[1]))


def longest_block(every: int) -> int:
    """Most frames that are read and decoded as one batch, where every n-th is memorised.

    One on CPUs: see `encoded_at_once`.
    """
    return 1 if _on_cpu() else min(every, LONGEST_BLOCK)


def fits_any_number() -> bool:
    """Whether a program for many blocks is used for fewer, too, and leaves the others out.

    So it is on CPUs, where frames are encoded and segmented by two programs that overlap. On
    accelerators, which compute many frames as one batch, blocks left out would cost as much as
    others: there fewer blocks have programs of their own.
    """
    return _on_cpu()


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"

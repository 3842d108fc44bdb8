"""What a clip is, from the loader to the loss."""

from typing import Any

import flax.struct
from jaxtyping import Bool, UInt8


@flax.struct.dataclass
class Clip:
    """A training clip; with leading axes b, a batch of them.

    A pytree of NumPy arrays as the loader makes it, of JAX arrays within the step.

    Attributes:
      frames: [*b, t, H, W, 3] uint8, RGB.
      labels: [*b, t, H, W] uint8, object ids of all frames: 0 background, 1..o the slots in order.
      perturbed: [*b, o, H, W] uint8, 0 or 1: imperfect masks of the first frame, from which the
        memory starts (RDE-VOS, section 3.4).
      valid: [*b, o] bool, slots that hold an object. The others are empty in all masks.
      given: what the memory starts from beside masks, see `rdejax.memory.protocol.Masks.given`,
        each [*b, o, ...]; None, as the loader leaves it, for the rule's own.
    """

    frames: UInt8[Any, "*b t H W 3"]
    labels: UInt8[Any, "*b t H W"]
    perturbed: UInt8[Any, "*b o H W"]
    valid: Bool[Any, "*b o"]
    given: dict[str, Any] | None = None

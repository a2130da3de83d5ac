"""Public randomness for initial weights: a seed and a name give the same float32 bits on every machine.

torch promises no such thing across CPUs, devices and releases, and numpy's distributions may change their streams
(NEP 19 fixes only the raw output of a bit generator). So a weight is a raw 64-bit word of PCG64, cut to 53 bits
and scaled: integer arithmetic and one exact rounding. Uniform weights serve where a paper draws normal ones of the
same variance. None of this is used for anything private.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt
import torch


def uniform(seed: int, name: str, shape: tuple[int, ...], bound: float) -> npt.NDArray[np.float32]:
    """Independent uniform numbers in [-bound, bound).

    Args:
        seed: public, from the agreement.
        name: of what is drawn; other names give independent numbers.
        shape: of the result.
        bound: half the interval's width.
    """
    key = hashlib.sha256(f"hansa/initial-weights/1\n{seed}\n{name}".encode()).digest()
    raw = np.random.PCG64(int.from_bytes(key, "big")).random_raw(math.prod(shape))
    unit = (np.asarray(raw, dtype=np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2.0 * unit - 1.0) * bound).astype(np.float32).reshape(shape)


def draw(parameter: torch.Tensor, seed: int, name: str, bound: float) -> None:
    """Fill `parameter` in place with `uniform` numbers."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(uniform(seed, name, tuple(parameter.shape), bound)))


def draw_linear(layer: torch.nn.Linear, seed: int, name: str) -> None:
    """Weight and bias of a linear layer, uniform within 1/√fan-in (torch's own default, LeCun 1998)."""
    bound = 1.0 / math.sqrt(layer.in_features)
    draw(layer.weight, seed, f"{name}.weight", bound)
    if layer.bias is not None:
        draw(layer.bias, seed, f"{name}.bias", bound)

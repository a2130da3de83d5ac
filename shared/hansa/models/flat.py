"""One flat vector for the trained weights of a model: the same order on every machine.

A release, a server step and a ledger entry know a model as one vector. Its layout is the trained parameters
sorted by name, each row-major; the vector is float64 while the parameters are float32, so that reading is exact
and writing rounds once.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hansa.errors import ModelError

Vector = npt.NDArray[np.float64]

# peft keeps the layer that it adapts as `base_layer` and one entry per adapter, always called "default" here.
_ADAPTED = re.compile(r"\.base_layer(?=\.)|(?<=\.lora_[AB])\.default(?=\.)")
_WRAPPER = "_module."  # opacus.GradSampleModule


def clean_name(path: str, prefix: str = "") -> str:
    """A parameter's name as the architecture's authors would write it.

    Args:
        path: from `named_parameters`, for example
            ``model.bert.encoder.layer.0.attention.self.query.lora_B.default.weight``.
        prefix: what a wrapper put in front, for example ``model.``.
    """
    return _ADAPTED.sub("", path.removeprefix(prefix))


@dataclass(frozen=True)
class FlatParameters:
    """The layout of a flat vector.

    Attributes:
        names: clean names in ascending order of code points.
        shapes: of each, in that order.
        paths: where each is found in the module.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    paths: tuple[str, ...]

    @classmethod
    def of(cls, module: torch.nn.Module, *, prefix: str = "") -> FlatParameters:
        """The layout of `module`'s trained parameters (those with ``requires_grad``); tied ones stand once.

        Raises:
            ModelError: nothing is trained, two parameters have one clean name, or one is not float32.
        """
        found = {path: p for path, p in module.named_parameters() if p.requires_grad}
        if not found:
            raise ModelError("the model has no weights to train", remedy="Choose another adapter or model.")
        names = {path: clean_name(path, prefix) for path in found}
        if len(set(names.values())) != len(names):
            twice = sorted({n for n in names.values() if list(names.values()).count(n) > 1})
            raise ModelError(f"two trained parameters share a name: {', '.join(twice)}")
        other = sorted(names[path] for path, p in found.items() if p.dtype != torch.float32)
        if other:
            raise ModelError(
                f"trained parameters must be float32, and {', '.join(other[:5])} "
                f"{'is' if len(other) == 1 else 'are'} not"
            )
        order = sorted(found, key=names.__getitem__)
        return cls(
            names=tuple(names[path] for path in order),
            shapes=tuple(tuple(found[path].shape) for path in order),
            paths=tuple(order),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each parameter starts in the vector."""
        return tuple(itertools.accumulate(self.sizes, initial=0))[:-1]

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def parameters(self, module: torch.nn.Module) -> tuple[torch.nn.Parameter, ...]:
        """The trained parameters of `module`, or of an Opacus wrapper around it, in the vector's order.

        Raises:
            ModelError: `module` lacks one, or has it in another shape.
        """
        present = {path.removeprefix(_WRAPPER): p for path, p in module.named_parameters()}
        for name, path, shape in zip(self.names, self.paths, self.shapes, strict=True):
            if path not in present or tuple(present[path].shape) != shape:
                raise ModelError(f"the module has no parameter {name!r} of shape {shape}")
        return tuple(present[path] for path in self.paths)

    def vector(self, module: torch.nn.Module) -> Vector:
        """The trained weights as a new float64 vector of shape ``[size]``."""
        flat = np.empty(self.size, dtype=np.float64)
        for part, parameter in self._parts(flat, module):
            part[...] = parameter.detach().to("cpu").numpy()
        return flat

    def load(self, module: torch.nn.Module, vector: Vector) -> None:
        """Write `vector` into the trained parameters in place, rounded to their precision.

        Raises:
            ModelError: another dtype or length, or an entry that is not a finite float32; nothing was written.
        """
        self._check(vector)
        source = (
            vector if vector.flags.writeable else vector.copy()
        )  # torch shares memory with writeable arrays only
        with torch.no_grad():
            for part, parameter in self._parts(source, module):
                parameter.copy_(torch.from_numpy(part))

    def arrays(self, vector: Vector) -> dict[str, npt.NDArray[np.float32]]:
        """`vector` cut into named float32 arrays; checked as by `load`."""
        self._check(vector)
        return {
            name: vector[start : start + size].astype("<f4").reshape(shape)
            for name, start, size, shape in zip(
                self.names, self.offsets, self.sizes, self.shapes, strict=True
            )
        }

    @staticmethod
    def digest(vector: Vector) -> str:
        """SHA-256 of the little-endian float64 bytes, in hexadecimal."""
        return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f8").tobytes()).hexdigest()

    def _check(self, vector: Vector) -> None:
        if vector.dtype != np.float64 or vector.shape != (self.size,):
            raise ModelError(
                f"a vector of {vector.dtype} with shape {vector.shape} does not fit {self.size} weights of float64"
            )
        limit = float(np.finfo(np.float32).max)
        if self.size and not (-limit <= vector.min() and vector.max() <= limit):  # NaN is neither
            wrong = int(np.count_nonzero(~(np.abs(vector) <= limit)))
            raise ModelError(f"{wrong} of {self.size} weights are not finite float32 numbers")

    def _parts(
        self, flat: Vector, module: torch.nn.Module
    ) -> Iterator[tuple[npt.NDArray[Any], torch.nn.Parameter]]:
        parameters = self.parameters(module)
        for parameter, start, size, shape in zip(
            parameters, self.offsets, self.sizes, self.shapes, strict=True
        ):
            yield flat[start : start + size].reshape(shape), parameter


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and little-endian bytes of `tensors`, sorted by name.

    Each tensor enters as a line ``name dtype shape`` and its bytes, whose number the line fixes. The hash of no
    tensors is that of no bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode())
        octets: Any = tensor.reshape(-1).view(torch.uint8).numpy()  # a buffer, which numpy's stubs do not say
        digest.update(octets)
    return digest.hexdigest()

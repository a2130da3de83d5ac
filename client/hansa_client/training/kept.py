"""Activations below the first trained layer, computed once for each record and kept.

With an adapter or a head in the upper layers, most of a pass is spent on what never changes: frozen layers on the
same records. `FrozenPart` finds the place up to which that holds, and `KeptActivations` remembers what a model
computes there. What is kept is data of the member's and never leaves it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hansa.errors import TrainingError
from hansa_client.training.transfer import on_device

Forward = Callable[[], Tensor]


class _Reached(Exception):  # noqa: N818  # no error: the way out of a model whose upper half is not needed
    """The activations that were wanted are there."""


@dataclass(frozen=True)
class FrozenPart:
    """The modules that need not run when the output of the last of them is known.

    Attributes:
        modules: in the order of their calls.
        trailing: shapes of their outputs behind the batch's axis, for the probe.
        length: places of the probe's texts; outputs that have as many are cut like the texts of a batch.
    """

    modules: tuple[nn.Module, ...]
    trailing: tuple[tuple[int, ...], ...]
    length: int | None

    @classmethod
    def found(cls, module: nn.Module, forward: Forward, length: int | None) -> FrozenPart | None:
        """Find it by trial on a public probe: what goes before the last module may be anything at all.

        Args:
            module: the model.
            forward: runs it on two public records with autograd on, and gives the logits.
            length: places of a text; `None` where inputs are no texts.

        Returns:
            `None` if nothing lies below the first trained layer, or the model gives another result each time: with
            dropout below the first trained layer, what is kept would be drawn once instead of at every step.
        """
        outputs = _frozen_outputs(module, forward)
        modules = list(outputs)
        with torch.no_grad():
            expected = forward()
            for last in reversed(range(len(modules))):
                part = cls(
                    tuple(modules[: last + 1]),
                    tuple(tuple(outputs[m].shape[1:]) for m in modules[: last + 1]),
                    length,
                )
                with part.replaced(outputs[modules[last]], float("nan")):
                    found = forward()
                if torch.equal(found, expected):
                    return part if torch.equal(forward(), expected) else None
        return None

    @property
    def cut(self) -> bool:
        """Whether what is kept has an axis of places, as long as the texts of a batch."""
        return self.length is not None and len(self.trailing[-1]) > 1 and self.trailing[-1][0] == self.length

    def shape(self, records: int, places: int) -> tuple[int, ...]:
        """Of what is kept for so many records of at most so many places."""
        trailing = self.trailing[-1]
        return (records, *((places, *trailing[1:]) if self.cut else trailing))

    def bytes_for(self, records: int, places: int) -> int:
        """What that takes."""
        return 4 * math.prod(self.shape(records, places))

    def weights(self) -> list[nn.Parameter]:
        """All weights that it reads."""
        return [p for module in self.modules for p in module.parameters()]

    @contextmanager
    def replaced(self, last: Tensor, filler: float = 0.0) -> Iterator[None]:
        """Within the block the last module gives `last`, and those before it tensors of nothing but `filler`."""
        with ExitStack() as undo:
            for module, trailing in zip(self.modules[:-1], self.trailing, strict=False):
                places = (
                    (last.shape[1],) if self.length is not None and trailing[:1] == (self.length,) else ()
                )
                shape = (len(last), *(places + trailing[1:] if places else trailing))
                fill = torch.full((1,), filler, dtype=last.dtype, device=last.device).expand(shape)
                _give(module, fill, undo)
            _give(self.modules[-1], last, undo)
            yield

    def run(self, forward: Forward) -> Tensor:
        """What the last module gives; the model is left as soon as that is there."""
        found: list[Tensor] = []

        def reached(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            found.append(output)
            raise _Reached

        hook = self.modules[-1].register_forward_hook(reached)
        try:
            with torch.no_grad():
                forward()
        except _Reached:
            pass
        finally:
            hook.remove()
        return found[0].detach()


class KeptActivations:
    """What a frozen part gives for each record of a data set, filled as records are met.

    Args:
        part: of the model.
        records: of the data set.
        places: the longest text of the data set; not read where outputs have no places.
        folder: where to map a file into memory; `None` keeps all in memory.

    Guarantees: the file has no name where the system allows that (Linux), so that nobody can open it and that it is
        gone when the process ends, however it ends. Elsewhere only this user may read it.
    Leaks: time. A record that is met for the first time takes longer than one that was met before.

    Raises:
        TrainingError: the folder's disk does not hold the file.
    """

    def __init__(self, part: FrozenPart, records: int, places: int, folder: Path | None = None) -> None:
        self.part = part
        shape = part.shape(records, places)
        self._values: npt.NDArray[np.float32] = (
            np.zeros(shape, dtype=np.float32) if folder is None else _mapped(shape, folder)
        )
        self._dtype = torch.float32
        self._known = np.zeros(records, dtype=np.bool_)
        self._versions = self._writes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything; with the last of it the file is gone."""
        self._values = np.zeros(0, dtype=np.float32)
        self._known = np.zeros(0, dtype=np.bool_)

    def of(
        self, records: npt.NDArray[np.int64], tensors: Mapping[str, Tensor], forward: Callable[..., Tensor]
    ) -> Tensor:
        """The activations of a microbatch, computed for the records that are new.

        Args:
            records: int64 [B], places in the data set.
            tensors: the microbatch's inputs.
            forward: runs the model on inputs.

        Raises:
            TrainingError: a frozen weight was written to since, so that what is kept is of another model.
        """
        if self._writes() != self._versions:
            raise TrainingError("frozen weights were changed under activations that were kept")
        device = next(iter(tensors.values())).device
        new = np.flatnonzero(~self._known[records])
        if len(new):
            chosen = on_device(new, device)
            some = {name: value.index_select(0, chosen) for name, value in tensors.items()}
            output = self.part.run(lambda: forward(**some))
            self._dtype = output.dtype
            found = output.float().cpu().numpy()
            if self.part.cut:
                self._values[records[new], : found.shape[1]] = found
            else:
                self._values[records[new]] = found
            self._known[records[new]] = True
        values = self._values[records]
        if self.part.cut:
            values = values[:, : next(iter(tensors.values())).shape[1]]
        return on_device(values, device).to(self._dtype)

    def _writes(self) -> list[int]:
        return [p._version for p in self.part.weights()]  # noqa: SLF001  # torch has no public name for it


@dataclass(frozen=True)
class KeptRecords:
    """A microbatch's places in what is kept.

    Attributes:
        kept: of the data set.
        records: int64 [B].
    """

    kept: KeptActivations
    records: npt.NDArray[np.int64]


def _mapped(shape: tuple[int, ...], folder: Path) -> npt.NDArray[np.float32]:
    """Zeros in a file without a name, whose place on the disk is taken at once: a full disk would kill the process later."""
    wanted = 4 * math.prod(shape)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, wanted)
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    except OSError as error:
        raise TrainingError(
            f"activations of {wanted:,} bytes cannot be kept in {folder}: {error.strerror}",
            remedy="Point TMPDIR to a larger disk, or set performance.keep_activations = 'off'.",
        ) from None


def _frozen_outputs(module: nn.Module, forward: Forward) -> dict[nn.Module, Tensor]:
    """Outputs of the largest modules without trained weights that run before any trained one, in order."""
    outputs: dict[nn.Module, Tensor] = {}
    calls: dict[nn.Module, int] = {}

    def note(layer: nn.Module, _arguments: Any, output: Any) -> None:
        calls[layer] = calls.get(layer, 0) + 1
        if isinstance(output, Tensor) and output.dim() > 1 and len(output) == 2 and not output.requires_grad:
            outputs[layer] = output.detach()

    frozen = [m for m in module.modules() if m is not module and _is_frozen(m)]
    hooks = [m.register_forward_hook(note) for m in frozen]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    found = {m: out for m, out in outputs.items() if calls[m] == 1 and out.is_floating_point()}
    inner = {child for m in found for child in m.modules() if child is not m}
    return {m: out for m, out in found.items() if m not in inner}


def _is_frozen(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters())


def _give(module: nn.Module, output: Tensor, undo: ExitStack) -> None:
    def forward(*_arguments: Any, **_named: Any) -> Tensor:
        return output

    module.__dict__["forward"] = forward  # an instance's own comes before its class's
    undo.callback(module.__dict__.pop, "forward")


def longest(inputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Places of the longest text of a data set after padding is trimmed; 0 where inputs are no texts."""
    mask = inputs.get("attention_mask")
    return 0 if mask is None or not len(mask) else int(mask.sum(1).max())

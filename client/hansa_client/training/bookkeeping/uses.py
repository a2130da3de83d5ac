"""What a trained tensor's gradient is made of, record by record, and the two questions that are asked of it.

A layer that is called with an input a [B, T, n] and whose output gets the gradient g [B, T, m] gives record b the
weight gradient Σ_t g_bt a_btᵀ. The factors say everything: the squared norm of that sum is Σ_ts ⟨g_t, g_s⟩⟨a_t, a_s⟩
(the ghost norm: Goodfellow, arXiv 1510.01799; Li et al., arXiv 2110.05679), and a weighted sum over records is one
matrix product (book-keeping: Bu et al., ICML 2023). Nothing of the size B · m · n is ever made.

A tensor that is used several times in one pass (tied or shared weights) has several uses, and its gradient is
their sum: `squared_norms` adds the inner products of all pairs, so that no cross term is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hansa_client.training.transfer import on_device

_LOW = (torch.bfloat16, torch.float16)
# A computed square is short of the true one by at most γ_k L², where k terms are added in any order, L is the sum of
# the lengths of what adds up to the gradient, γ_k = k·u / (1 − k·u) and u is half a unit in the last place (Higham,
# Accuracy and Stability, section 3.1). docs/noise.md counts k. (k + _ROOM)·u·L² is added, so that a norm is never too
# small; and since a clipped unit's lengths then add up to at most C / √(_ROOM·u), 128·C in float32, what cancels inside a
# unit drowns nothing of the others.
_ROOM = 1024
# Records whose numbers are added in one go; such sums are added up afterwards. Equal records are rounded in the same
# direction, so that a sum of n in one go may err by n²·u / 3 of C, a third of η at n = 130.
_TOGETHER = 64
_REMEMBERED = 2
_HALVED, _NARROW = (
    32,
    512,
)  # a Gram matrix of so many places at least, of vectors so long at most, in two halves


@dataclass(frozen=True)
class Rows:
    """Unit vectors e_index instead of a dense factor: what a lookup in a table of `count` rows amounts to.

    Attributes:
        index: int64 [B, T].
        count: rows of the table.
    """

    index: Tensor
    count: int


@dataclass(frozen=True)
class Outer:
    """A gradient [m, n] per record, kept as its factors: Σ_t left_t right_tᵀ.

    Attributes:
        left: [B, T, m], or the rows that were looked up.
        right: [B, T, n].
    """

    left: Tensor | Rows
    right: Tensor


@dataclass(frozen=True)
class Whole:
    """A gradient per record as such: [B, …]; for tensors where it is smaller than its factors."""

    rows: Tensor


Use: TypeAlias = Outer | Whole


class Units:
    """Which unit each record of a pass belongs to.

    Args:
        unit_of_record: int64 [B], 0 … count−1; looked at here, so that nobody waits for a GPU to tell.
        count: number of units; each has a record.
        device: of the pass.

    Attributes:
        of_record: int64 [B], on the device.
        count: as given.
        single: whether each unit is one record, in the same order.
        most_records: of one unit.
    """

    def __init__(self, unit_of_record: npt.NDArray[np.int64], count: int, device: torch.device) -> None:
        self.of_record = on_device(unit_of_record, device)
        self.count = count
        self.single = np.array_equal(unit_of_record, np.arange(count))
        self.most_records = 1
        if not self.single:
            places = _places(unit_of_record, count)
            self.most_records = places.shape[1]
            self._places = on_device(places, device)

    def summed(self, rows: Tensor) -> Tensor:
        """Sum [B, …] over each unit's records: [U, …]."""
        if self.single:
            return rows
        total = torch.zeros((self.count, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        return total.index_add_(0, self.of_record, rows)

    def joined(self, sequence: Tensor) -> Tensor:
        """A unit's records behind one another as one longer sequence: [B, T, n] to [U, R·T, n], zeros at the end.

        Padding is copied, never multiplied: a record that is not finite stays inside its own unit.
        """
        if self.single:
            return sequence
        # record B is a row of zeros, for the places that a unit with fewer records leaves empty
        padded = torch.cat([sequence, torch.zeros_like(sequence[:1])])
        taken = padded.index_select(0, self._places.flatten())
        return taken.view(self.count, -1, *sequence.shape[2:])

    def of_records(self, values: Tensor) -> Tensor:
        """A value per unit, told to each of its records: [U] to [B]."""
        return values if self.single else values.index_select(0, self.of_record)


@dataclass(frozen=True)
class SquaredNorms:
    """Squared norms of one tensor's gradient, a row per unit.

    Attributes:
        values: float64 [U], at least the true ones of what `weighted_sum` adds: what rounding may have hidden is added.
        sound: bool [U]; false where the numbers are not finite, or so large that float products of small ones
            with them could have been lost on the way.
    """

    values: Tensor
    sound: Tensor


class Memory:
    """The last results that layers may share: Gram matrices and weighted copies of the same tensor.

    Query, key and value maps read one input; the embeddings of a token get one gradient. They ask one after the
    other.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def gram(self, factor: Tensor, units: Units) -> Tensor:
        """⟨factor_t, factor_s⟩ for all places of a unit, [U, T, T], at least float32."""

        def make() -> Tensor:
            return gram(units.joined(factor))

        return self._found(("gram", *_key(factor)), factor, make)

    def scaled(self, factor: Tensor, weights: Tensor, bad: Tensor | None) -> Tensor:
        """Each record's factor times its weight; zeros for the records that are bad."""

        def make() -> Tensor:
            return without(factor * _column(weights, factor).to(_wide(factor.dtype)), bad)

        return self._found(("scaled", id(weights), *_key(factor)), factor, make)

    def forget(self) -> None:
        """Let go of everything."""
        self._last.clear()

    def _found(self, key: tuple[object, ...], of: Tensor, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._last:
            if len(self._last) >= _REMEMBERED:
                self._last.pop(next(iter(self._last)))
            self._last[key] = (
                of,
                make(),
            )  # with its tensor, whose place in memory must not be another's meanwhile
        return self._last[key][1]


@dataclass(frozen=True)
class UseNorm:
    """The squared norm of one use by itself.

    Attributes:
        square: [U].
        lengths: [U], lengths of what adds up to the use; the norm is at most their sum, and rounding is relative to it.
        fits: bool [U]; false where a factor is so large, 2³⁰ in float32, that products with small numbers may have been
            lost: what vanishes in a Gram matrix, below 2⁻⁷⁵, then adds less than 2⁻⁴⁵ a place to a norm.
        terms: k, how many roundings one entry of `square` has seen at most.
    """

    square: Tensor
    lengths: Tensor
    fits: Tensor
    terms: int


@dataclass(frozen=True)
class Noted:
    """A use, with its own norm where it is kept as factors."""

    use: Use
    norm: UseNorm | None

    @classmethod
    def of(cls, use: Use, units: Units, memory: Memory) -> Noted:
        """Work out what can be worked out now, while factors are at hand."""
        return cls(use, ghost_norm(use, units, memory) if isinstance(use, Outer) else None)


def ghost_norm(use: Outer, units: Units, memory: Memory) -> UseNorm:
    """‖Σ_t left_t right_tᵀ‖² for each unit, from two Gram matrices."""
    right = memory.gram(use.right, units)
    of_right = right.diagonal(dim1=1, dim2=2)
    most = 2.0 ** (60 if right.dtype == torch.float32 else 800)
    fits = of_right.sum(1) < most
    terms = use.right.shape[2] + 2 * right.shape[1]
    if isinstance(use.left, Rows):
        index = units.joined(use.left.index.unsqueeze(2)).squeeze(2)
        square = _added(right * (index.unsqueeze(1) == index.unsqueeze(2)))
        return UseNorm(square, of_right.sqrt().sum(1), fits, terms)
    left = memory.gram(use.left, units)
    of_left = left.diagonal(dim1=1, dim2=2)
    lengths = (of_left * of_right).sqrt().sum(1)
    fits &= of_left.sum(1) < most
    return UseNorm(_added(left * right), lengths, fits, terms + use.left.shape[2])


def _norm_of_rows(rows: Tensor, summed: Tensor, units: Units) -> UseNorm:
    """‖Σ rows of a unit‖² for each; `summed` are the sums."""
    square = _added(summed.square())
    lengths = square.sqrt() if units.single else units.summed(_added(rows.square()).sqrt())
    records = 1 if units.single else units.most_records
    return UseNorm(square, lengths, torch.isfinite(square), sum(rows.shape[1:]) + 3 * records)


def squared_norms(noted: Sequence[Noted], units: Units) -> SquaredNorms:
    """‖Σ uses‖² for each unit.

    Args:
        noted: the uses of one tensor, at least one.
        units: of the records.
    """
    uses: list[Use] = []
    norms: list[UseNorm] = []
    for one in noted:
        if isinstance(one.use, Whole):
            summed = units.summed(one.use.rows)
            uses.append(Whole(summed))
            norms.append(_norm_of_rows(one.use.rows, summed, units))
        elif one.norm is not None:
            uses.append(one.use)
            norms.append(one.norm)
        else:
            raise TypeError("factors without their norm")
    if not norms:
        raise ValueError("a tensor without a use has no norm")
    total, lengths, fits = norms[0].square, norms[0].lengths, norms[0].fits
    for norm in norms[1:]:
        total, lengths, fits = total + norm.square, lengths + norm.lengths, fits & norm.fits
    for i, use in enumerate(uses):
        for other in uses[i + 1 :]:
            total = total + 2 * _inner(use, other, units)
    terms = 2 * max(norm.terms for norm in norms) if len(norms) > 1 else norms[0].terms
    rounding = (terms + len(norms) ** 2 + _ROOM) * torch.finfo(total.dtype).eps / 2
    values = total.double().clamp(min=0.0) + rounding * lengths.double().square()
    return SquaredNorms(values, torch.isfinite(values) & fits)


def _added(values: Tensor) -> Tensor:
    """The sum over all axes but the first, one after the other: a sum of so many terms as their lengths add up to."""
    while values.dim() > 1:
        values = values.sum(-1)
    return values


def weighted_sum(
    uses: Sequence[Use], shape: torch.Size, weights: Tensor, bad: Tensor | None, memory: Memory
) -> Tensor:
    """Σ_b weights_b · (gradient of record b), of the tensor's shape, at least float32.

    Args:
        uses: of one tensor; none means zero.
        shape: of the tensor.
        weights: [B].
        bad: bool [B], records that must not enter whatever they hold (0 · ∞ is not 0); `None` for none of them.
        memory: of the pass.
    """
    total: Tensor | None = None
    for use in uses:
        if isinstance(use, Whole):
            rows = without(use.rows.flatten(1), bad)
            part = _in_parts(torch.matmul, weights.to(rows.dtype), rows)
        elif isinstance(use.left, Rows):
            scaled = memory.scaled(use.right, weights, bad)
            part = _in_parts(partial(_looked_up, use.left.count), use.left.index, scaled)
        elif use.left.shape[2] < use.right.shape[2]:  # the narrower factor takes the weights
            part = _in_parts(_token_product, memory.scaled(use.left, weights, bad), without(use.right, bad))
        else:
            part = _in_parts(_token_product, without(use.left, bad), memory.scaled(use.right, weights, bad))
        total = part if total is None else total.add_(part.view_as(total))
    if total is None:
        return torch.zeros(shape, dtype=torch.float32, device=weights.device)
    return total.view(shape)


def without(rows: Tensor, bad: Tensor | None) -> Tensor:
    """[B, …] with zeros in the rows that are bad."""
    return rows if bad is None else torch.where(_column(bad, rows), 0.0, rows)


def gram(rows: Tensor) -> Tensor:
    """⟨rows_t, rows_s⟩ of [B, T, n] as [B, T, T], at least float32.

    The matrix is symmetric: on a processor, where that was measured to be faster, one of its two off-diagonal
    quarters is computed and the other copied.
    """
    length, width = rows.shape[1:]
    half = length // 2
    if rows.device.type != "cpu" or length % 2 or not (length >= _HALVED and width <= _NARROW):
        return batched_product(rows, rows.transpose(1, 2))
    halves = rows.reshape(-1, half, width)
    own = batched_product(halves, halves.transpose(1, 2)).view(-1, 2, half, half)
    across = batched_product(rows[:, :half], rows[:, half:].transpose(1, 2))
    whole = torch.empty((len(rows), length, length), dtype=own.dtype)
    whole[:, :half, :half], whole[:, half:, half:] = own[:, 0], own[:, 1]
    whole[:, :half, half:], whole[:, half:, :half] = across, across.transpose(1, 2)
    return whole


def batched_product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix products [B, …] accumulated, and given out, in float32 at least."""
    if left.dtype in _LOW:
        if left.is_cuda:  # tensor cores multiply the low precision exactly and add in float32
            return torch.bmm(left, right, out_dtype=torch.float32)
        left, right = left.float(), right.float()
    return torch.bmm(left, right)


def _in_parts(product: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
    """A sum over records, of `_TOGETHER` at once."""
    parts = zip(one.split(_TOGETHER), other.split(_TOGETHER), strict=True)
    total = product(*next(parts))
    for some in parts:
        total += product(*some)
    return total


def _looked_up(count: int, index: Tensor, rows: Tensor) -> Tensor:
    """A table of `count` rows: the sum of the rows that stand at each index."""
    rows = rows.flatten(0, 1)
    table = torch.zeros((count, rows.shape[1]), dtype=rows.dtype, device=rows.device)
    return table.index_add_(0, index.flatten(), rows)


def _token_product(left: Tensor, right: Tensor) -> Tensor:
    """Σ over records and places of left rightᵀ, in float32 at least."""
    dtype = torch.promote_types(_wide(left.dtype), _wide(right.dtype))
    return left.to(dtype).flatten(0, 1).t() @ right.to(dtype).flatten(0, 1)


def _inner(one: Use, other: Use, units: Units) -> Tensor:
    """⟨one, other⟩ of each unit [U]; `Whole` ones are summed by unit already."""
    if isinstance(one, Whole) and isinstance(other, Whole):
        return _added(one.rows * other.rows)
    if isinstance(one, Whole):
        return _inner(other, one, units)
    right = units.joined(one.right)
    if isinstance(other, Whole):
        matrix = other.rows.flatten(2) if other.rows.dim() > 2 else other.rows.unsqueeze(2)
        if isinstance(one.left, Rows):
            index = units.joined(one.left.index.unsqueeze(2))
            found = matrix.gather(1, index.expand(-1, -1, matrix.shape[2]))
        else:
            found = batched_product(units.joined(one.left), matrix.to(one.left.dtype))
        return _added(found * right)
    rights = batched_product(right, units.joined(other.right).transpose(1, 2))
    return _added(_lefts(one.left, other.left, units) * rights)


def _lefts(one: Tensor | Rows, other: Tensor | Rows, units: Units) -> Tensor:
    """⟨one_t, other_s⟩ as [U, T, S]."""
    if isinstance(one, Rows) and isinstance(other, Rows):
        mine = units.joined(one.index.unsqueeze(2))
        theirs = units.joined(other.index.unsqueeze(2))
        return mine == theirs.transpose(1, 2)
    if isinstance(one, Rows):
        return _lefts(other, one, units).transpose(1, 2)
    dense = units.joined(one)
    if isinstance(other, Rows):
        index = units.joined(other.index.unsqueeze(2)).squeeze(2)
        return dense.gather(2, index.unsqueeze(1).expand(-1, dense.shape[1], -1))
    return batched_product(dense, units.joined(other).transpose(1, 2))


def _places(unit_of_record: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Which records each unit has, int64 [U, R]; B where it has fewer than the others."""
    records = len(unit_of_record)
    order = np.argsort(unit_of_record, kind="stable")
    sizes = np.bincount(unit_of_record, minlength=count)
    places = np.full((count, int(sizes.max())), records, dtype=np.int64)
    units = unit_of_record[order]
    starts = np.cumsum(sizes) - sizes
    places[units, np.arange(records) - starts[units]] = order
    return places


def _key(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _LOW else dtype

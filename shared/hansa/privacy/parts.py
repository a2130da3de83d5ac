"""A share of noise in parts, of which the surplus can be taken off once it is known who contributed.

Against c that collude, k contributors leave k − c honest shares, and each needs a variance of V / (k − c), V = (z·Δ)². Who is
there is known too late: so a member draws as much as the smallest sum m needs, V / (m − c), in parts

    V/(n − c),  V/((n − 1 − c)(n − c)),  …,  V/((m − c)(m + 1 − c)),

whose sums from the left are V/(n − c), V/(n − 1 − c), …, V/(m − c). When k contributed, the last k − m parts are opened and taken
off, and what is left of every honest share is exactly V / (k − c). The first part is never opened. Each part is a discrete
Gaussian of its own variance + 4 on the grid, charged as its variance (`hansa.privacy.grid`); parts and shares add up to a
discrete Gaussian to within 1e-30, since each is at least 20 grid units wide.

Seeds are a chain: the seed of a part gives that of the part that is taken off before it, and not the other way round. So one
seed opens all that are to go, and nothing of what is to stay; and the end of the chain, which is signed with the masked vector,
proves an opened seed.

Source: Jiang, Wang, Chen, "Dordis" (EuroSys 2024, arXiv 2209.12528), XNoise; the chain is Lamport's (CACM 1981).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hansa.canonical import Json
from hansa.errors import PrivacyParameterError
from hansa.privacy.grid import Grid
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.staircase import staircase
from hansa.privacy.streams import AesStream

if TYPE_CHECKING:
    from hansa.privacy.randomness import Randomness

GridVector = npt.NDArray[np.int64]

SEED_BYTES = 32
_LABEL = b"hansa/noise-parts/v1\n"


@dataclass(frozen=True)
class NoiseParts:
    """The parts of every member's share, from public numbers alone.

    Attributes:
        smallest_sum: m; no sum over fewer is opened.
        lasting: parameter of the discrete Gaussian that always stays, in grid units.
        surplus: parameters of the parts that may be taken off: the first where m + 1 contribute, the first two where m + 2 do.
    """

    smallest_sum: int
    lasting: float
    surplus: tuple[float, ...]

    @classmethod
    def of(
        cls, grid: Grid, noise_multiplier: float, *, members: int, smallest_sum: int, colluding: int
    ) -> NoiseParts:
        """The parts under which every sum is left with the promised noise.

        Args:
            grid: says Δ.
            noise_multiplier: z, of honest members together.
            members: n.
            smallest_sum: m.
            colluding: c.

        Raises:
            PrivacyParameterError: nobody honest is left in the smallest sum, or a part is below 20 grid units.
        """
        if not 0 <= colluding < smallest_sum <= members:
            raise PrivacyParameterError(
                f"a sum over {smallest_sum} of {members} members leaves no shares against {colluding} that collude"
            )
        between = [
            noise_multiplier / math.sqrt((k - colluding) * (k + 1 - colluding))
            for k in range(smallest_sum, members)
        ]
        lasting = grid.sigma(noise_multiplier / math.sqrt(members - colluding))
        return cls(smallest_sum, lasting, tuple(grid.sigma(part) for part in between))

    @property
    def sigma(self) -> float:
        """Parameter of a whole share: the root of the parts' summed squares, in grid units."""
        return math.sqrt(self.lasting**2 + sum(part**2 for part in self.surplus))

    def removed(self, contributors: int) -> int:
        """How many parts are taken off a sum over so many members."""
        return min(max(contributors - self.smallest_sum, 0), len(self.surplus))

    def left(self, contributors: int) -> float:
        """Variance of what is left of one opened share, in grid units squared."""
        return self.lasting**2 + sum(part**2 for part in self.surplus[self.removed(contributors) :])

    def surplus_of(self, seed: bytes, removed: int, size: int) -> GridVector:
        """The noise of the parts that a seed opens, added up.

        Args:
            seed: opened, of the part that is the last to be taken off.
            removed: how many parts it opens.
            size: d.

        Returns:
            int64 [d], in grid units: what the member has added.

        Raises:
            PrivacyParameterError: there are not so many parts.
        """
        if not 1 <= removed <= len(self.surplus):
            raise PrivacyParameterError(
                f"{removed} parts of noise are not among the {len(self.surplus)} that may go"
            )
        total = np.zeros(size, dtype=np.int64)
        for sigma in reversed(self.surplus[:removed]):
            total += discrete_gaussian(AesStream(_derived(seed, b"key")), sigma, size)
            seed = _derived(seed, b"next")
        return total

    def tree(self) -> dict[str, Json]:
        """As JSON values, with digests of the tables that noise is drawn from: who has other tables draws other noise."""
        tables = hashlib.sha256()
        for sigma in self.surplus:
            tables.update(staircase(sigma).first.astype("<i8").tobytes())
        return {
            "smallest_sum": self.smallest_sum,
            "lasting": float(self.lasting).hex(),
            "surplus": [float(part).hex() for part in self.surplus],
            "tables_sha256": tables.hexdigest(),
        }


class PartSeeds:
    """The seeds of one member's surplus parts in one round.

    Args:
        parts: of the agreement.
        rand: a source of that many random bytes.

    Guarantees: `opened` tells the seeds of the parts that are to go and, if SHA-256 is one-way, nothing of the others;
        `end` tells nothing of any.
    Assumes: it lives for one contribution, in memory alone. Where it is lost, nothing is opened and all noise stays.
    """

    def __init__(self, parts: NoiseParts, rand: Callable[[int], bytes]) -> None:
        self.parts = parts
        seeds = [rand(SEED_BYTES)]
        while len(seeds) < len(parts.surplus):
            seeds.append(_derived(seeds[-1], b"next"))
        self._seeds = seeds[::-1]  # of the first part to go first

    @property
    def end(self) -> bytes:
        """What is signed before anything is opened: 32 bytes."""
        return _derived(self._seeds[0], b"next")

    def opened(self, removed: int) -> bytes:
        """The seed that opens the first `removed` parts.

        Raises:
            PrivacyParameterError: there are not so many parts.
        """
        if not 1 <= removed <= len(self.parts.surplus):
            raise PrivacyParameterError(f"{removed} parts of noise cannot be opened")
        return self._seeds[removed - 1]

    def noise(self, size: int) -> GridVector:
        """All surplus parts together, int64 [d], in grid units."""
        if not self.parts.surplus:
            return np.zeros(size, dtype=np.int64)
        return self.parts.surplus_of(self._seeds[-1], len(self.parts.surplus), size)


def end_of(seed: bytes, removed: int) -> bytes:
    """The end of the chain that an opened seed of so many parts belongs to."""
    for _ in range(removed):
        seed = _derived(seed, b"next")
    return seed


class InParts:
    """A source of randomness whose noise is a share in parts; everything else is drawn from the source below.

    Args:
        below: secret.
        seeds: of the surplus parts.
    """

    def __init__(self, below: Randomness, seeds: PartSeeds) -> None:
        self._below, self._seeds = below, seeds
        self._drawn = False

    def key(self) -> bytes:
        """As of `Randomness`."""
        return self._below.key()

    def noise(self, sigma: float, size: int) -> GridVector:
        """A whole share, once.

        Raises:
            PrivacyParameterError: another parameter than a share's, or a second draw: parts are opened once.
        """
        parts = self._seeds.parts
        if sigma != parts.sigma or self._drawn:
            raise PrivacyParameterError("noise in parts is drawn once, of the parameter of a whole share")
        self._drawn = True
        share = self._below.noise(parts.lasting, size)
        share += self._seeds.noise(size)
        return share


def _derived(seed: bytes, label: bytes) -> bytes:
    if len(seed) != SEED_BYTES:
        raise PrivacyParameterError(f"a seed of noise has {SEED_BYTES} bytes, not {len(seed)}")
    return hashlib.sha256(_LABEL + label + b"\n" + seed).digest()

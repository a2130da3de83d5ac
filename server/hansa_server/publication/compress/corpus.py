"""Public data that steps may read: texts from a named source, or rows generated from the agreement's public schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hansa.agreement.terms import CategoryFeature, NumberFeature, Terms
from hansa.artifact.errors import StepError


@dataclass(frozen=True)
class PublicCorpus:
    """Texts that everybody may read.

    Attributes:
        source: where they come from, for the model card; a person vouches for it.
        texts: at least one.
    """

    source: str
    texts: tuple[str, ...] = field(repr=False)

    @classmethod
    def read(cls, path: Path, source: str) -> PublicCorpus:
        """From a file with one text a line, in UTF-8.

        Raises:
            StepError: it cannot be read, or holds no text.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StepError(
                f"cannot read the public texts in {path}: {getattr(error, 'strerror', None) or 'no UTF-8'}",
                remedy="Name a file with one text a line, in UTF-8.",
            ) from None
        return cls(source, tuple(line.strip() for line in lines if line.strip()))

    def __post_init__(self) -> None:
        if not self.source.strip() or not any(text.strip() for text in self.texts):
            raise StepError("a public corpus needs texts, and the name of their source")


def generated_rows(terms: Terms, count: int, seed: int) -> npt.NDArray[np.float32]:
    """Encoded rows drawn from the public ranges and vocabularies alone: numbers uniform, categories alike often.

    Returns:
        float32 ``[count, width]``.
    """
    generator = np.random.default_rng(seed)  # public: nothing here protects anyone
    parts = []
    for feature in terms.data.features:
        if isinstance(feature, NumberFeature):
            parts.append(generator.uniform(-1.0, 1.0, (count, 1)))
        elif isinstance(feature, CategoryFeature):
            drawn = generator.integers(0, feature.width + (feature.baseline is not None), count)
            parts.append(np.eye(feature.width + 1)[drawn][:, : feature.width])
    return np.concatenate(parts, axis=1).astype(np.float32)

"""Norms and clipped sums of per-unit gradients from one forward and one backward pass.

`survey` finds a rule for every trained tensor, `BookKeeper` runs batches, and `PassGradients` answers for one:
exact squared norms first, then one weighted sum. Nothing in here knows a grid, a clipping rule or noise.
"""

from hansa_client.training.bookkeeping.keeper import BookKeeper, PassGradients
from hansa_client.training.bookkeeping.survey import Survey, survey

__all__ = ["BookKeeper", "PassGradients", "Survey", "survey"]

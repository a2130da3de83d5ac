"""What federations are compared with: the same training on all records in one place, or at one member alone.

There is one member and no sum, so none of this is in what members or coordinators run: a federation has no road on
which an update leaves without masks.
"""

from hansa_simulations.baseline.messages import read_update, train_request, update_reply
from hansa_simulations.baseline.node import BaselineNode, budget_book
from hansa_simulations.baseline.summation import PlainSummation

__all__ = [
    "BaselineNode",
    "PlainSummation",
    "budget_book",
    "read_update",
    "train_request",
    "update_reply",
]

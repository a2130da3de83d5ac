"""The requests and replies of a run, and what both sides derive from the agreement to read them.

In a federation every exchange is one `sum_request`: a bundle of the secure sum's messages, the sums of earlier rounds
from which the member derives the model for itself, and news of the federation's log. Nothing here asks for an update
without a sum around it.
"""

from hansa.protocol.approval import (
    Proposed,
    approval_request,
    approved_reply,
    read_approval_request,
    read_approved_reply,
)
from hansa.protocol.common import (
    PolicyCode,
    close_request,
    hello_reply,
    hello_request,
    read_hello,
    refusal,
)
from hansa.protocol.derivation import (
    JUDGED,
    UPDATE,
    Aggregate,
    Derivation,
    public_weights,
    rotation_of,
    shared_noise,
    starting_state,
    sum_terms,
    table_encoding,
    update_encoding,
    update_length,
)
from hansa.protocol.exchange import (
    MAX_AGGREGATES,
    MAX_FILES,
    Answered,
    Asked,
    bundle_of_reply,
    closed_reply,
    read_sum_reply,
    read_sum_request,
    read_witness_request,
    read_word_reply,
    sum_reply,
    sum_request,
    witness_request,
    witnessed_reply,
)
from hansa.protocol.history import MAX_NEWS, MAX_SAID, News, Word, first_of, fresh_line

__all__ = [
    "JUDGED",
    "MAX_AGGREGATES",
    "MAX_FILES",
    "MAX_NEWS",
    "MAX_SAID",
    "UPDATE",
    "Aggregate",
    "Answered",
    "Asked",
    "Derivation",
    "News",
    "PolicyCode",
    "Proposed",
    "Word",
    "approval_request",
    "approved_reply",
    "bundle_of_reply",
    "close_request",
    "closed_reply",
    "first_of",
    "fresh_line",
    "hello_reply",
    "hello_request",
    "public_weights",
    "read_approval_request",
    "read_approved_reply",
    "read_hello",
    "read_sum_reply",
    "read_sum_request",
    "read_witness_request",
    "read_word_reply",
    "refusal",
    "rotation_of",
    "shared_noise",
    "starting_state",
    "sum_reply",
    "sum_request",
    "sum_terms",
    "table_encoding",
    "update_encoding",
    "update_length",
    "witness_request",
    "witnessed_reply",
]

"""The secure sum: Bonawitz double masking on the complete graph, hardened against a malicious coordinator.

Two state machines without I/O, `Member` and `Coordinator`, exchange bundles of `hansa.wire` messages; `verify_sum`
recomputes what they did from the published record. Vectors are integers modulo 2^32 (`Quantiser`), masks are
AES-256-CTR, secrets are shared over GF(2^521 - 1). What is promised, and what is not: docs/secure-sum.md.
"""

from hansa.secagg.bundle import answer
from hansa.secagg.member import Contributor, Member
from hansa.secagg.messages import Manifest
from hansa.secagg.pipeline import Coordinator
from hansa.secagg.record import PhaseCost, RoundRecord, SumOutcome
from hansa.secagg.ring import Quantiser
from hansa.secagg.seal import Seal
from hansa.secagg.store import FolderStore, MemoryStore, NoSpool, Store
from hansa.secagg.terms import SumTerms, VectorTerms
from hansa.secagg.verify import (
    VerifiedRecord,
    VerifiedSum,
    attest,
    follows,
    verify_record,
    verify_sum,
)
from hansa.secagg.workers import MaskWorkers

__all__ = [
    "Contributor",
    "Coordinator",
    "FolderStore",
    "Manifest",
    "MaskWorkers",
    "Member",
    "MemoryStore",
    "NoSpool",
    "PhaseCost",
    "Quantiser",
    "RoundRecord",
    "Seal",
    "Store",
    "SumOutcome",
    "SumTerms",
    "VectorTerms",
    "VerifiedRecord",
    "VerifiedSum",
    "answer",
    "attest",
    "follows",
    "verify_record",
    "verify_sum",
]

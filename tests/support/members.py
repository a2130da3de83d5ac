"""A member with a ledger: its keys, its grant, a clock that a test sets, and a run of small releases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hansa.ledger import Log, LogStore, MemoryLogStore, NoteSigner, SignedEntry
from hansa.ledger.budgets import granted
from hansa.privacy.charges import Charge
from hansa.privacy.composition import RenyiFilter
from hansa.privacy.events import Spend, gaussian
from hansa.privacy.records import Grant
from hansa_client.ledger import MemberLedger, Software
from hansa_client.protection import Protection
from support import budgets
from support.ledgers import (
    AGREEMENT,
    AT,
    HASH,
    MEMBERS,
    OFFICERS,
    OTHER,
    ROSTER,
    SIGNERS,
    TERMS,
    WITNESS_SIGNERS,
    signed,
)

MEMBER = MEMBERS[0]
OWN_LOGS = {name: NoteSigner.generate(f"hansa.example/member/{name}") for name in MEMBERS}
WITNESSES = dict(zip(MEMBERS, WITNESS_SIGNERS, strict=True))
SOFTWARE = Software({"hansa": "0.1.0", "torch": "2.13.0"}, HASH)
PROTECTION = Protection("patient", 4)
LIMITS = budgets.grant(4.0, RenyiFilter(8))
TRAINING = Charge("training", gaussian(40.0), 20)
EVALUATION = Charge("evaluation", gaussian(60.0), 2)
RUN = "run-1"


class Clock:
    """A clock that goes on a second each time it is read."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


def budget(member: str = MEMBER, limits: Grant = LIMITS, **changes: Any) -> SignedEntry:
    """A grant by a member's officer."""
    said: dict[str, Any] = {"member": member, "unit": "patient", "max_records_per_unit": 4, "at": AT}
    return signed(granted(limits, **{**said, **changes}))


def opened(
    store: LogStore | None = None, member: str = MEMBER, clock: Clock | None = None, **told: Any
) -> MemberLedger:
    """The ledger over a store, which may hold one already."""
    log = Log(MemoryLogStore() if store is None else store, OWN_LOGS[member])
    return MemberLedger(log, SIGNERS[member], OFFICERS[member].public_key, SOFTWARE, clock or Clock(), **told)


def sign(ledger: MemberLedger, agreement_id: str = AGREEMENT) -> SignedEntry:
    """Have the member sign the agreement of the league."""
    return ledger.sign_agreement(
        agreement_id,
        terms_id=TERMS,
        roster_sha256=ROSTER.sha256,
        witness_key=WITNESSES[ledger.member].key,
    )


def ready(store: LogStore | None = None, member: str = MEMBER, **told: Any) -> MemberLedger:
    """A ledger with a grant and a signed agreement."""
    ledger = opened(store, member, **told)
    ledger.grant(budget(member))
    sign(ledger)
    return ledger


def release(ledger: MemberLedger, number: int, count: int = 2, run: str = RUN, **changes: Any) -> SignedEntry:
    """Release in a round."""
    told: dict[str, Any] = {
        "round_number": number,
        "step": number - 1,
        "purpose": "training",
        "spend": Spend(TRAINING.event, count),
        "y_sha256": f"{number:064x}",
        "manifest_sha256": OTHER,
        "rng": "AES-CTR keyed by the operating system",
    }
    return ledger.release(AGREEMENT, run, **{**told, **changes})


def trained(rounds: int, store: LogStore | None = None, member: str = MEMBER, run: str = RUN) -> MemberLedger:
    """A ledger with a run in which a member has released in so many rounds."""
    ledger = ready(store, member)
    ledger.reserve(AGREEMENT, run, [TRAINING], PROTECTION)
    for number in range(1, rounds + 1):
        release(ledger, number, run=run)
    return ledger

"""The coordinator's side of one round: a state machine without I/O of its own.

Each phase asks (`SumRound.requests`), takes replies (`SumRound.accept`) and ends (`SumRound.close`). A member that
does not answer in a phase is missing from it; the round goes on while enough are left. Replies are kept, first come
and never replaced, and everything that is sent is a function of them, bit for bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hansa.canonical import sha256_hex
from hansa.identity.keys import Signer
from hansa.identity.statement import Statement, pack
from hansa.privacy.parts import SEED_BYTES
from hansa.secagg import messages as m
from hansa.secagg.commitments import SALT_BYTES
from hansa.secagg.dealing import Parcels, left_out
from hansa.secagg.errors import AlreadyAnsweredError, PhaseError, QuorumError, TranscriptError
from hansa.secagg.record import Phase, PhaseCost, RoundRecord, SumOutcome
from hansa.secagg.ring import RingVector, SumVector
from hansa.secagg.shares import SHARE_BYTES
from hansa.secagg.store import Store
from hansa.secagg.surplus import proves, take_off
from hansa.secagg.terms import SumTerms
from hansa.secagg.unmasking import Opened, RoundFacts, aggregate_sha256, masks_to_remove, reconstruct
from hansa.secagg.workers import MaskWorkers
from hansa.vectors import IN_MEMORY, Vectors, in_blocks
from hansa.wire import Array, Message

_WRITTEN_AT_ONCE = (
    16 * 2**20
)  # bytes of masked vectors that may wait in memory for the others of their exchange


@dataclass(frozen=True)
class House:
    """What all rounds of a run share."""

    terms: SumTerms
    context: m.Context
    signer: Signer
    spool: Store
    workers: MaskWorkers
    vectors: Vectors = IN_MEMORY


@dataclass(frozen=True)
class _Reply:
    member: str
    said: Any  # of the type that the check expects; `accept` sees to it
    statement: Statement
    message: Message


class SumRound:
    """One round; `answers` holds what each member said in each phase, first come and never replaced."""

    def __init__(self, house: House, number: int) -> None:
        self.house, self.number, self.phase = house, number, Phase.KEYS
        self.context, self.terms = house.context, house.terms
        self.answers: dict[type[m.Said], dict[str, tuple[Any, Statement]]] = defaultdict(dict)
        self.dropped: dict[str, str] = {}
        self.costs: dict[str, PhaseCost] = defaultdict(PhaseCost)
        self.receipts: dict[str, Statement] = {}
        self.late: set[str] = set()  # whose masked vector came when the survivors were fixed already
        self.opened: dict[str, Opened] = {}
        self.noise_seeds: dict[str, bytes] = {}  # opened, and proven by the signed ends of their chains
        self._false_seeds: list[str] = []
        self._unwritten: dict[str, memoryview] = {}  # masked vectors that are not in the spool yet, by name
        self._sum: RingVector | None = None  # made with the first masked vector
        self.outcome: SumOutcome | None = None
        self.transcript = self.binding = ""
        self.contributors: tuple[str, ...] = ()
        self.survivors: tuple[str, ...] = ()

    # --- what is asked -------------------------------------------------------------------------------------

    def requests(self) -> dict[str, list[Message]]:
        """What each member has still to answer in this phase."""
        match self.phase:
            case Phase.KEYS:
                return self._ask(self.terms.roster.active, m.Keys, m.KeysRequest)
            case Phase.SHARES:
                return self._ask(self._said(m.Keys), m.Shares, m.SharesRequest, {"keys": self._lines(m.Keys)})
            case Phase.DELIVERY:
                return {
                    name: [self._delivery(name)] for name in self._missing(self._said(m.Shares), m.Received)
                }
            case Phase.MASKED:
                manifest = Message(m.Manifest.purpose_name, {m.SIGNED: self.manifest.line})
                return {
                    name: [manifest] if name in self.answers[m.Received] else [self._delivery(name), manifest]
                    for name in self._missing(self.contributors, m.Masked)
                }
            case Phase.CONFIRM:
                masked = {"masked": self._lines(m.Masked)}
                asked = self._ask(self.survivors, m.Confirm, m.Survivors, masked, binding=self.binding)
                return self._with_receipts(asked, self.receipts)
            case Phase.UNMASK if self.terms.confirmed:
                signed = [self.answers[m.Confirm][name][1] for name in self._said(m.Confirm)]
                proof = {"confirmations": pack(replace(one, data=b"") for one in signed)}
                asked = self._ask(
                    self._said(m.Confirm), m.Unmask, m.UnmaskRequest, proof, binding=self.binding
                )
                return self._with_receipts(asked, self.late)  # the others have theirs by now
            case Phase.UNMASK:
                proof = {"masked": self._lines(m.Masked)}
                asked = self._ask(
                    self._said(m.Masked), m.Unmask, m.UnmaskRequest, proof, binding=self.binding
                )
                return self._with_receipts(asked, self.receipts)
        return {}

    def _ask(
        self,
        names: Iterable[str],
        reply: type[m.Said],
        request: type[m.Said],
        arrays: Mapping[str, Array] | None = None,
        **fields: object,
    ) -> dict[str, list[Message]]:
        message = self.context.write(self.house.signer, request, self.number, arrays, **fields)
        return {name: [message] for name in self._missing(names, reply)}

    def _delivery(self, holder: str) -> Message:
        dealers = [name for name in self._said(m.Shares) if name != holder]
        statements = pack(self.answers[m.Shares][name][1] for name in dealers)
        arrays = {"shares": statements, **self.parcels.for_holder(holder, dealers)}
        return self.context.write(
            self.house.signer, m.Delivery, self.number, arrays, transcript=self.transcript
        )

    def _with_receipts(
        self, asked: dict[str, list[Message]], names: Iterable[str]
    ) -> dict[str, list[Message]]:
        for name in self.context.in_order(names):
            receipt = Message(m.Receipt.purpose_name, {m.SIGNED: self.receipts[name].line})
            asked.setdefault(name, []).append(receipt)
        return asked

    # --- what is answered ----------------------------------------------------------------------------------

    def accept(self, said: m.Said, statement: Statement, message: Message) -> None:
        """Take one member's reply, or refuse it with a typed error and change nothing."""
        reply, model = _Reply(statement.signer, said, statement, message), type(said)
        known = self.answers[model].get(reply.member)
        if known is not None:
            if known[1].data != statement.data:
                raise AlreadyAnsweredError(
                    f"{reply.member!r} has answered {message.kind} before, and differently"
                )
            return
        phases: dict[type[m.Said], tuple[Phase, Callable[[_Reply], None]]] = {
            m.Keys: (Phase.KEYS, self._check_keys),
            m.Shares: (Phase.SHARES, self._check_shares),
            m.Received: (Phase.DELIVERY, self._check_received),
            m.Masked: (Phase.MASKED, self._check_masked),
            m.Confirm: (Phase.CONFIRM, self._check_confirm),
            m.Unmask: (Phase.UNMASK, self._check_unmask),
        }
        phase, check = phases[model]
        too_late = model is m.Masked and Phase.MASKED < self.phase < Phase.DONE
        with_manifest = model is m.Received and self.phase == Phase.MASKED
        if self.phase != phase and not too_late and not with_manifest:
            raise PhaseError(f"{message.kind} of round {self.number} is not due (it is in {self.phase.name})")
        check(reply)
        if too_late:
            self.late.add(reply.member)
        else:
            self.answers[model][reply.member] = said, statement

    def _check_keys(self, reply: _Reply) -> None:
        offers = {name: known.public for name, (known, _) in self.answers[m.Keys].items()}
        public = reply.said.public
        m.check_offers({**offers, reply.member: public}, post_quantum=self.terms.post_quantum)
        public.check_usable(reply.member)

    def _check_shares(self, reply: _Reply) -> None:
        self._expect(reply, reply.member in self.answers[m.Keys] and reply.said.transcript == self.transcript)
        self.parcels.add(reply.member, reply.message, reply.said.root)

    def _check_received(self, reply: _Reply) -> None:
        dealers = set(self.answers[m.Shares])
        self._expect(reply, reply.member in dealers and reply.said.transcript == self.transcript)
        self._expect(reply, set(reply.said.complaints) <= dealers - {reply.member})

    def _check_masked(self, reply: _Reply) -> None:
        self._expect(reply, reply.member in self.contributors and reply.said.binding == self.binding)
        vector = reply.message.array(m.VECTOR, "<u4", self.vector_terms.length)
        self._expect(reply, (self.vector_terms.parts is not None) == (m.NOISE_END in reply.message.arrays))
        receipt = {"binding": self.binding, "member": reply.member, "y_sha256": reply.said.y_sha256}
        self.receipts[reply.member] = self.context.state(
            self.house.signer, m.Receipt, self.number, **receipt
        )[1]
        if self.phase == Phase.MASKED:
            self._spool(vector_name(self.context.run, self.number, reply.member), vector)
            total = self._sum_so_far()
            for part in in_blocks(len(vector), vector):
                np.add(total[part], vector[part], out=total[part])

    def _sum_so_far(self) -> RingVector:
        if self._sum is None:
            self._sum = self.house.workers.empty(self.vector_terms.length)
            self._sum.fill(0)
        return self._sum

    def _spool(self, name: str, vector: RingVector) -> None:
        """Keep a vector for the verifier; small ones are written together, at the end of the exchange."""
        self._unwritten[name] = vector.data
        if sum(data.nbytes for data in self._unwritten.values()) >= _WRITTEN_AT_ONCE:
            self._write_spool()

    def _write_spool(self) -> None:
        if self._unwritten:
            self.house.spool.put_together(self._unwritten)
            self._unwritten = {}

    def _check_confirm(self, reply: _Reply) -> None:
        self._expect(reply, reply.member in self.survivors and reply.statement.data == self.confirm)

    def _check_unmask(self, reply: _Reply) -> None:
        asked = self.answers[m.Confirm if self.terms.confirmed else m.Masked]
        self._expect(reply, reply.member in asked and reply.said.confirmed_sha256 == sha256_hex(self.confirm))
        rows = len(self.contributors)
        shares = m.rows_of(reply.message, "shares", (rows, SHARE_BYTES)).tobytes()
        salts = m.rows_of(reply.message, "salts", (rows, SALT_BYTES)).tobytes()
        self.opened[reply.member] = Opened(shares, salts)
        if m.NOISE_SEED in reply.message.arrays:
            seed = m.rows_of(reply.message, m.NOISE_SEED, (SEED_BYTES,)).tobytes()
            if proves(seed, self._removed, self.answers[m.Masked][reply.member][0].noise_end_sha256):
                self.noise_seeds[reply.member] = seed
            else:
                self._false_seeds.append(reply.member)

    @property
    def _removed(self) -> int:
        """How many parts of each survivor's noise are taken off the sum."""
        parts = self.vector_terms.parts
        return 0 if parts is None else parts.removed(len(self.survivors))

    def _expect(self, reply: _Reply, fits: bool) -> None:  # noqa: FBT001  (a condition, not a switch)
        if not fits:
            what = f"{reply.message.kind} of {reply.member!r}"
            raise TranscriptError(f"{what} does not belong to round {self.number} as it stands")

    # --- what follows --------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the exchange of this phase.

        Raises:
            QuorumError: too few answered; the phase stays open and can be asked again.
        """
        terms = self.terms
        match self.phase:
            case Phase.KEYS:
                keys = self._enough(terms.roster.active, m.Keys, terms.floor)
                offers = {name: self.answers[m.Keys][name] for name in keys}
                self.transcript = m.transcript_of(self.context, self.number, offers)
                self.parcels = Parcels(
                    {name: terms.roster.x[name] for name in keys}, hybrid=terms.post_quantum
                )
                self.phase = Phase.SHARES
            case Phase.SHARES:
                self.contributors = self._enough(self._said(m.Keys), m.Shares, terms.floor)
                self.phase = Phase.DELIVERY if terms.confirmed else Phase.READY
            case Phase.DELIVERY:
                self._settle_complaints()
            case Phase.MASKED:
                self._write_spool()
                self.survivors = self._enough(self.contributors, m.Masked, terms.floor)
                masked = {name: self.answers[m.Masked][name][0] for name in self.survivors}
                self.confirm = self.context.confirmation(self.number, self.transcript, self.manifest, masked)
                self.phase = Phase.CONFIRM if terms.confirmed else Phase.UNMASK
            case Phase.CONFIRM:
                self._enough(self.survivors, m.Confirm, terms.threshold)
                self.phase = Phase.UNMASK
            case Phase.UNMASK:
                source = m.Confirm if terms.confirmed else m.Masked
                self._enough(self._said(source), m.Unmask, terms.threshold)
                self._finish()

    def _settle_complaints(self) -> None:
        out = left_out(self._complaints())
        stay = tuple(name for name in self.contributors if name not in out)
        if len(stay) < self.terms.floor:
            raise QuorumError(
                f"round {self.number}: complaints leave {len(stay)} members; out are {', '.join(sorted(out))}",
                present=len(stay),
                missing=sorted(out),
            )
        self.dropped |= dict.fromkeys(sorted(out), "complaint")
        self.contributors, self.phase = stay, Phase.READY

    def _complaints(self) -> dict[str, tuple[str, ...]]:
        return {
            name: said.complaints for name, (said, _) in self.answers[m.Received].items() if said.complaints
        }

    def begin(self, manifest: Mapping[str, object]) -> None:
        """Fix what is summed and ask for it."""
        said, self.manifest = self.context.state(
            self.house.signer, m.Manifest, self.number,
            transcript=self.transcript, contributors=self.contributors, **manifest,
        )  # fmt: skip
        self.vector_terms, self.step = self.terms.vectors[said.purpose], said.step
        self.purpose = said.purpose
        self.binding = m.binding_of(self.transcript, self.manifest.sha256)
        self.phase = Phase.MASKED

    def _finish(self) -> None:
        facts = RoundFacts(
            self.transcript,
            self.binding,
            {name: self.terms.roster.x[name] for name in self._said(m.Keys)},
            {name: said.public for name, (said, _) in self.answers[m.Keys].items()},
            self.contributors,
            self.survivors,
        )
        opened = {name: self.opened[name] for name in self._said(m.Unmask)}
        secrets, liars = reconstruct(facts, opened, self.parcels.rows, self.terms.threshold)
        blamed = dict.fromkeys(liars, "opened shares that are not those its dealers signed")
        blamed |= dict.fromkeys(self._false_seeds, "opened another seed of noise than it has signed")
        for holder, dealers in self._complaints().items():
            pair = f"an envelope to {holder} did not open, or {holder} says so falsely"
            blamed |= dict.fromkeys((holder, *dealers), pair)
        pads = {name: self.parcels.pads_for(name, self.survivors) for name in facts.vanished}
        add, subtract = masks_to_remove(facts, secrets, pads)
        self.phase = Phase.DONE  # from here on the sum is unmasked, whatever it turns out to be
        masked, self._sum = self._sum_so_far(), None
        self.house.workers.add_masks(masked, add, subtract)
        seeds = {name: self.noise_seeds[name] for name in self.context.in_order(self.noise_seeds)}
        take_off(masked, self.vector_terms, seeds.values(), self._removed)
        total = self._kept(self.vector_terms.quantiser.decode(masked, len(self.survivors)))
        record = RoundRecord(
            terms=self.terms.sha256,
            run=self.context.run,
            round=self.number,
            keys=self._texts(m.Keys),
            manifest=self.manifest.line,
            masked=self._texts(m.Masked),
            confirmations=self._texts(m.Confirm),
            receipts=tuple(self.receipts[name].line for name in self.context.in_order(self.receipts)),
            self_seeds={name: seed.hex() for name, seed in secrets.self_seeds.items()},
            mask_seeds={name: seed.hex() for name, seed in secrets.mask_seeds.items()},
            pads={name: {lower: pad.hex() for lower, pad in sent.items()} for name, sent in pads.items()},
            aggregate_sha256=aggregate_sha256(total),
            noise_seeds={name: seed.hex() for name, seed in seeds.items()},
        )
        self.outcome = SumOutcome(
            self.number, self.purpose, self.step, total, self.survivors, self.dropped, blamed,
            self.terms.threshold, self.costs, record,
        )  # fmt: skip

    def _kept(self, total: SumVector) -> SumVector:
        """The sum where it stays while members are told it; where that is a file, the memory it was made in goes."""
        placed = self.house.vectors.placed(total)
        if placed is not total:
            self.house.workers.give_back()
        return placed

    # --- small things --------------------------------------------------------------------------------------

    def _said(self, model: type[m.Said]) -> tuple[str, ...]:
        return self.context.in_order(self.answers[model])

    def _missing(self, names: Iterable[str], model: type[m.Said]) -> tuple[str, ...]:
        return tuple(name for name in names if name not in self.answers[model])

    def _enough(self, names: Iterable[str], model: type[m.Said], needed: int) -> tuple[str, ...]:
        missing, there = self._missing(names, model), self._said(model)
        if len(there) < needed:
            raise QuorumError(
                f"round {self.number}: {len(there)} members answered in {self.phase.name}, {needed} are needed; "
                f"missing are {', '.join(missing)}",
                present=len(there),
                missing=missing,
            )
        self.dropped |= {name: self.phase.name.lower() for name in missing if name not in self.dropped}
        return there

    def _lines(self, model: type[m.Said]) -> Array:
        return pack(self.answers[model][name][1] for name in self._said(model))

    def _texts(self, model: type[m.Said]) -> tuple[str, ...]:
        return tuple(self.answers[model][name][1].line for name in self._said(model))

    @property
    def incomplete(self) -> bool:
        """Whether shares are still missing from members that offered keys."""
        return self.phase == Phase.SHARES and bool(self._missing(self._said(m.Keys), m.Shares))

    @property
    def spooled(self) -> list[str]:
        """Under which names the masked vectors lie."""
        return [vector_name(self.context.run, self.number, name) for name in self._said(m.Masked)]


def vector_name(run: str, number: int, member: str) -> str:
    """Under which name a masked vector is spooled."""
    return f"{run}.{number}.{member}.y"

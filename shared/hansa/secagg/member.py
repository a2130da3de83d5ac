"""A member of a secure sum: a state machine without I/O of its own.

`Member.handle` takes one message of the coordinator and gives the reply. The order, round by round:

1. keys: fresh secrets, offered once; may be asked for rounds ahead.
2. shares: all signed keys are checked; both seeds are shared among those who offered.
3. delivery: the others' envelopes are opened; what does not open is a signed complaint.
4. manifest: if it follows from the last one and nobody in it was complained of, the contribution is made,
   encoded, masked and sent. Its masks are expanded while it is made, in memory. The secrets are gone from the durable
   state *before* a mask meets the contribution, so that no crash can lead to a second vector under the same masks; the
   vector is durable before its first byte leaves.
5. survivors: if they are enough, this member among them, all bound to the same manifest, they are signed.
6. unmask: for the very bytes that t members signed, one share of each contributor, and never both; and the seed of what of
   its own noise so many survivors need not keep, where noise is in parts.

Where several messages come in one exchange, all that they change is written at its end, before any reply leaves.

A phase is answered once. The same request again gets the same bytes again; another one is refused. Whatever is
refused is a typed error, and nothing has changed.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag

from hansa.errors import WireError
from hansa.identity.keys import Signer
from hansa.identity.roster import COORDINATOR
from hansa.identity.statement import Statement, unpack
from hansa.privacy.parts import PartSeeds
from hansa.secagg import member_state as at
from hansa.secagg import messages as m
from hansa.secagg.dealing import (
    CONTENT_BYTES,
    OpeningKeys,
    Parties,
    deal,
    open_dealt,
    own_masks,
    read_parcels,
)
from hansa.secagg.errors import (
    AlreadyAnsweredError,
    ExcludedError,
    MaskForfeitedError,
    PhaseError,
    QuorumError,
    RoundRefusedError,
    TranscriptError,
)
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.masks_ahead import MaskAhead
from hansa.secagg.member_state import Answer, MemberState, RoundState
from hansa.secagg.ring import RingVector, Vector
from hansa.secagg.seal import Seal
from hansa.secagg.shares import SHARE_BYTES, Rand
from hansa.secagg.store import Store
from hansa.secagg.terms import SumTerms
from hansa.secagg.workers import MaskWorkers
from hansa.wire import Array, Message


class Contributor(Protocol):
    """The member's own side of a round: its policy, its training, its budget."""

    def contribute(self, manifest: m.Manifest, seeds: PartSeeds | None = None) -> Vector:
        """Check what the machine cannot (model, step, checkpoint, budget), then make the vector.

        Args:
            manifest: asks for it.
            seeds: of the surplus of its noise, where the terms have noise in parts. The machine opens them, and nobody else.

        Returns:
            Clipped and noised; floating point, or integers on the grid of the manifest's purpose.

        Raises:
            HansaError: the member takes no part; nothing was masked and the keys stay unused.
        """

    def released(self, manifest: m.Manifest, manifest_sha256: str, y_sha256: str) -> None:
        """Put the masked vector on the member's record; durable before return, and before the vector is.

        Args:
            manifest: for which it was made.
            manifest_sha256: H(manifest).
            y_sha256: H(y).

        Raises:
            HansaError: it cannot be recorded. The vector does not leave, and the round is forfeited.
        """

    def summed(self, number: int, vectors: Mapping[str, str]) -> None:
        """Allow that the vectors of a round are added up, before anything is signed or opened for it.

        Args:
            number: of the round.
            vectors: H(y) by member, of all that are to be summed.

        Raises:
            HansaError: one of them is not on record. Nothing has changed.
        """


class Member:
    """One member in one run.

    Args:
        terms: the agreement's.
        run: the run's name.
        signer: the member's identity.
        contributor: called once per round, after every check on the manifest.
        store: durable before its `put` returns.
        seal: for the state between phases.
        rand: a source of that many random bytes.
        max_retries: how often in this run a step may be summed again, each time charged anew.
        workers: processes for large vectors.

    Guarantees: the vector leaves only under masks that a coalition of the coordinator and n - t members cannot
        remove, except as part of a sum over max(t, min_members) contributions or more.
    Assumes: honest members are more than 2n/3; the store is not put back to an older state; X25519 or, in hybrid
        mode, ML-KEM-768 holds.
    Leaks: that the member takes part, when, and the size of its vector.
    """

    def __init__(
        self,
        terms: SumTerms,
        run: str,
        signer: Signer,
        contributor: Contributor,
        *,
        store: Store,
        seal: Seal,
        rand: Rand = os.urandom,
        max_retries: int = 2,
        workers: MaskWorkers | None = None,
    ) -> None:
        terms.roster.key_of(signer.name)
        self.name = signer.name
        self._terms, self._run, self._signer, self._contributor = terms, run, signer, contributor
        self._store, self._seal, self._rand, self._max_retries = store, seal, rand, max_retries
        self._workers = workers or MaskWorkers()
        self._context = m.Context(terms, run)
        self._state = MemberState.load(store, seal, f"{run}.state")
        self._lock = (
            threading.RLock()
        )  # a request that comes again while it is worked on waits for its own answer
        self._depth, self._dirty = 0, False
        self._texts: dict[int, tuple[RoundState, str]] = {}  # rounds as they were written last
        self._unwritten: dict[str, RingVector] = {}  # masked vectors, by their names in the store
        self._seeds: tuple[int, PartSeeds] | None = None  # of the last masked round, in memory alone
        phases: dict[type[m.Said], Callable[[Any, Message, RoundState], Message]] = {
            m.KeysRequest: self._offer,
            m.SharesRequest: self._deal,
            m.Delivery: self._open,
            m.Manifest: self._mask,
            m.Survivors: self._confirm,
            m.UnmaskRequest: self._unmask,
            m.Receipt: self._note,
        }
        self._phases = {model.purpose_name: (model, answer) for model, answer in phases.items()}

    def handle(self, request: Message) -> Message:
        """Answer one message of the coordinator.

        Raises:
            HansaError: the request is refused and nothing has changed; see `hansa.secagg.errors`.
        """
        if request.kind not in self._phases:
            raise WireError("a request of a kind that a member of a secure sum does not know")
        model, answer = self._phases[request.kind]
        with self.together():
            asked, _ = self._context.read(request, model, COORDINATOR)
            record = self._state.rounds.get(asked.round) or RoundState()
            given = record.answers.get(request.kind)
            return (
                answer(asked, request, record)
                if given is None
                else self._again(asked, request, record, given)
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Answers to several messages, on disk at once when the block ends. None of them may leave before.

        Raises:
            StateError: they cannot be stored. They are before anything else is answered, or nothing is.
        """
        with self._lock:
            if self._depth == 0:
                self._write()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            if self._depth == 0:
                self._write()

    def end(self) -> None:
        """Forget everything about the run but the receipts; no round of it is ever answered again.

        A run that was never begun here leaves nothing behind.
        """
        if self._state != MemberState():
            self.forget_vectors()
            with self.together():
                self._keep(self._state.ended())

    @property
    def over(self) -> bool:
        """Whether the run has ended here."""
        return self._state.is_ended

    @property
    def receipts(self) -> Mapping[int, str]:
        """The coordinator's signed receipts for masked vectors, by round; evidence where it denies having one."""
        return {number: record.receipt for number, record in self._state.rounds.items() if record.receipt}

    def forget_vectors(self) -> None:
        """Delete the masked vectors that are kept to be repeated, because the run is over; the state stays."""
        with self._lock:
            self._unwritten = {}
            self._store.put_together({}, forget=[self._vector_name(number) for number in self._state.rounds])

    # --- A, B and delivery ---------------------------------------------------------------------------------

    def _offer(self, asked: m.KeysRequest, request: Message, record: RoundState) -> Message:
        if asked.round <= self._state.masked_round:
            raise RoundRefusedError(f"round {asked.round} is not after round {self._state.masked_round}")
        secrets = RoundSecrets.draw(self._rand)
        public = secrets.public(self.name, post_quantum=self._terms.post_quantum)
        reply = self._context.write(self._signer, m.Keys, asked.round, **asdict(public))
        record = RoundState(phase=at.OFFERED, secrets=secrets, offer=reply.text(m.SIGNED))
        return self._answered(asked, request, record, reply)

    def _deal(self, asked: m.SharesRequest, request: Message, record: RoundState) -> Message:
        self._due(record, at.OFFERED, asked)
        offers = self._context.said_by_all(request, "keys", m.Keys, asked.round)
        if self.name not in offers or offers[self.name][1].line != record.offer:
            raise TranscriptError("the signed keys do not hold this member's own")
        keys = {name: said.public for name, (said, _) in offers.items()}
        m.check_offers(keys, post_quantum=self._terms.post_quantum)
        for name, public in keys.items():
            public.check_usable(name)  # before anybody is charged for the round
        self._enough(len(offers), "offered keys")
        transcript = m.transcript_of(self._context, asked.round, offers)
        record = record.model_copy(update={"phase": at.DEALT, "keys": keys, "transcript": transcript})
        dealt = deal(record.own_secrets, self._parties(record), self._rand)
        record = record.model_copy(update={"held": {self.name: dealt.own}})
        reply = self._context.write(
            self._signer, m.Shares, asked.round, dealt.arrays, transcript=transcript, root=dealt.root
        )
        return self._answered(asked, request, record, reply)

    def _open(self, asked: m.Delivery, request: Message, record: RoundState) -> Message:
        self._due(record, at.DEALT, asked)
        self._same(asked.transcript, record.transcript, "transcript")
        dealers = self._context.said_by_all(request, "shares", m.Shares, asked.round)
        parties, held, complaints = self._parties(record), dict(record.held), []
        said = {dealer: shares for dealer, (shares, _) in dealers.items()}
        opening = OpeningKeys.of(record.own_secrets, hybrid=parties.hybrid)
        for dealer, envelope, row, kem in read_parcels(request, parties, said):
            try:
                held[dealer] = open_dealt(opening, parties, dealer, envelope, row, kem)
            except InvalidTag:
                complaints.append(dealer)
        record = record.model_copy(update={"phase": at.OPENED, "held": held})
        reply = self._context.write(
            self._signer, m.Received, asked.round, transcript=record.transcript, complaints=tuple(complaints)
        )
        return self._answered(asked, request, record, reply)

    # --- C: the masked vector ------------------------------------------------------------------------------

    def _mask(self, asked: m.Manifest, request: Message, record: RoundState) -> Message:
        if record.phase == at.USED:
            raise MaskForfeitedError(f"the mask of round {asked.round} was taken before a crash")
        self._due(record, at.OPENED, asked)
        self._same(asked.transcript, record.transcript, "transcript")
        self._state.check_follows(asked, self._max_retries)
        if asked.purpose not in self._terms.vectors:
            raise TranscriptError("the manifest asks for a vector that the agreement does not name")
        if asked.contributors != self._context.in_order(set(asked.contributors) & set(record.held)):
            raise TranscriptError("the manifest names contributors of whom this member holds no good shares")
        if self.name not in asked.contributors:
            raise ExcludedError(f"round {asked.round} leaves this member out")
        self._enough(len(asked.contributors), "are to contribute")

        wanted = self._terms.vectors[asked.purpose]
        manifest = Statement.parse(request.text(m.SIGNED))
        binding = m.binding_of(record.transcript, manifest.sha256)
        parties = self._parties(record)
        plus, minus = own_masks(record.own_secrets, parties, record.held, asked.contributors, binding)
        with MaskAhead(self._workers, wanted.length, plus, minus) as mask:  # while the contribution is made
            seeds = None if wanted.parts is None else PartSeeds(wanted.parts, self._rand)
            values = self._contributor.contribute(asked, seeds)
            encoded = wanted.quantiser.encode(values, out=np.empty(wanted.length, dtype="<u4"))
            del values  # up to 8 bytes an entry
        known = {"manifest": manifest.line, "contributors": asked.contributors, "binding": binding}
        record = record.model_copy(update={"phase": at.USED, "secrets": None, **known})
        state, old = self._state.masking(asked, record)
        self._mark_used(state, old)
        vector = mask.over(encoded)
        arrays: dict[str, Array] = {m.VECTOR: vector}
        if seeds is not None:
            arrays[m.NOISE_END] = np.frombuffer(seeds.end, np.uint8)
        self._seeds = None if seeds is None else (asked.round, seeds)
        reply = self._context.write(self._signer, m.Masked, asked.round, arrays, binding=binding)
        self._contributor.released(asked, manifest.sha256, reply.array_hashes["y"])
        self._unwritten[self._vector_name(asked.round)] = vector
        record = record.model_copy(update={"phase": at.MASKED, "y_sha256": reply.array_hashes["y"]})
        return self._answered(asked, request, record, reply, apart=True)

    # --- D and E -------------------------------------------------------------------------------------------

    def _confirm(self, asked: m.Survivors, request: Message, record: RoundState) -> Message:
        if not self._terms.confirmed:
            raise PhaseError("survivors are not confirmed under this agreement")
        data = self._survived(asked, request, record)
        statement = Statement.signed(self._signer, m.Confirm.purpose_name, data)
        reply = Message(m.Confirm.purpose_name, {m.SIGNED: statement.line})
        record = record.model_copy(update={"phase": at.CONFIRMED, "confirmed": data})
        return self._answered(asked, request, record, reply, **self._settled(asked, record))

    def _unmask(self, asked: m.UnmaskRequest, request: Message, record: RoundState) -> Message:
        if self._terms.confirmed:
            self._due(record, at.CONFIRMED, asked)
            self._same(asked.binding, record.binding, "manifest")
            self._context.check_quorum(unpack(m.array_of(request, "confirmations")), record.confirmed)
            data = record.confirmed
        else:
            data = self._survived(asked, request, record)
        survivors = {name for name, _ in m.Confirm.model_validate_json(data).survivors}
        opened = [
            record.held[name].self_mask if name in survivors else record.held[name].mask_key
            for name in record.contributors
        ]
        table: Array = np.frombuffer(b"".join(opened), np.uint8).reshape(len(opened), CONTENT_BYTES)
        arrays = {"shares": table[:, :SHARE_BYTES], "salts": table[:, SHARE_BYTES:]}
        arrays |= self._surplus(asked.round, len(survivors))
        reply = self._context.write(
            self._signer, m.Unmask, asked.round, arrays, confirmed_sha256=hashlib.sha256(data).hexdigest()
        )
        record = record.model_copy(update={"phase": at.UNMASKED, "confirmed": data, "held": {}})
        return self._answered(asked, request, record, reply, **self._settled(asked, record))

    def _surplus(self, number: int, survivors: int) -> dict[str, Array]:
        """The seed of the parts of this member's noise that so many confirmed survivors need not keep.

        Asked for once in a round, for the bytes that t members signed; with two quorums sharing an honest member there is
        one number of survivors for everybody. After a restart the seeds are gone, and the noise stays.
        """
        if not self._terms.confirmed or self._seeds is None or self._seeds[0] != number:
            return {}
        seeds, self._seeds = self._seeds, None
        removed = seeds[1].parts.removed(survivors)
        return {m.NOISE_SEED: np.frombuffer(seeds[1].opened(removed), np.uint8)} if removed else {}

    def _survived(self, asked: m.Survivors | m.UnmaskRequest, request: Message, record: RoundState) -> bytes:
        self._due(record, at.MASKED, asked)
        if asked.round != self._state.masked_round:
            # a later round was masked, perhaps of the same step: of the two only the later one is ever signed
            raise PhaseError(f"round {asked.round} was given up for round {self._state.masked_round}")
        self._same(asked.binding, record.binding, "manifest")
        listed = self._context.said_by_all(request, "masked", m.Masked, asked.round)
        masked = {name: said for name, (said, _) in listed.items()}
        for said in masked.values():
            self._same(said.binding, record.binding, "manifest")
        if self.name not in masked:
            raise ExcludedError(f"round {asked.round} goes on without this member's vector")
        self._same(masked[self.name].y_sha256, record.y_sha256, "masked vector")
        if not set(masked) <= set(record.contributors):
            raise TranscriptError("a survivor was no contributor")
        self._enough(len(masked), "survived")
        self._contributor.summed(asked.round, {name: said.y_sha256 for name, said in masked.items()})
        return self._context.confirmation(
            asked.round, record.transcript, Statement.parse(record.manifest), masked
        )

    def _note(self, asked: m.Receipt, request: Message, record: RoundState) -> Message:
        self._same(asked.y_sha256, record.y_sha256, "masked vector")
        self._same(asked.binding, record.binding, "manifest")
        self._same(asked.member, self.name, "member")
        record = record.model_copy(update={"receipt": request.text(m.SIGNED)})
        self._keep(self._state.with_round(asked.round, record))
        return Message(m.NOTED, {})

    # --- state ---------------------------------------------------------------------------------------------

    def _answered(
        self,
        asked: m.Said,
        request: Message,
        record: RoundState,
        reply: Message,
        *,
        apart: bool = False,
        **changes: Any,
    ) -> Message:
        answer = Answer.of(request, reply, apart=apart)
        record = record.model_copy(update={"answers": {**record.answers, request.kind: answer}})
        self._keep(self._state.with_round(asked.round, record, **changes))
        return reply

    def _again(self, asked: m.Said, request: Message, record: RoundState, given: Answer) -> Message:
        if given.request_sha256 != at.sha256_of_signed(request):
            raise AlreadyAnsweredError(
                f"{request.kind} of round {asked.round} was answered, to another request"
            )
        if given.kind != m.Masked.purpose_name:
            return given.message(None)
        self._write()
        vector = self._store.get(self._vector_name(asked.round))
        if vector is None or hashlib.sha256(vector).hexdigest() != record.y_sha256:
            raise MaskForfeitedError(f"the masked vector of round {asked.round} is lost")
        return given.message(vector)

    def _keep(self, state: MemberState) -> None:
        """Go on with another state; `together` has it on disk before anybody hears of it."""
        self._state, self._dirty = state, True

    def _mark_used(self, state: MemberState, old: Sequence[int]) -> None:
        """Have the secrets of a round gone, durably, and with them the vectors of rounds that are too old."""
        before = self._state
        self._keep(state)
        try:
            self._write(forget=[self._vector_name(number) for number in old])
        except BaseException:
            self._state = before  # no mask has met the contribution: the round can be asked for again
            raise

    def _write(self, forget: Sequence[str] = ()) -> None:
        """Bring to disk what is not there: masked vectors before the state that speaks of them."""
        if not self._dirty and not self._unwritten:
            return
        name = f"{self._run}.state"
        vectors = {one: vector.data for one, vector in self._unwritten.items()}
        sealed = self._state.sealed(self._seal, name, self._texts)
        self._store.put_together({**vectors, name: sealed}, forget)
        self._dirty, self._unwritten = False, {}

    def _settled(self, asked: m.Said, record: RoundState) -> dict[str, Any]:
        if asked.round < self._state.settled_round:
            return {}  # what is settled later stays so
        manifest = Statement.parse(record.manifest)
        return {
            "settled_round": asked.round,
            "settled_step": m.Manifest.model_validate_json(manifest.data).step,
            "settled_manifest_sha256": manifest.sha256,
        }

    def _vector_name(self, number: int) -> str:
        return f"{self._run}.{number}.y"

    def _parties(self, record: RoundState) -> Parties:
        x = {name: self._terms.roster.x[name] for name in record.keys}
        return Parties(self.name, x, record.keys, record.transcript, self._terms.threshold)

    def _due(self, record: RoundState, phase: str, asked: m.Said) -> None:
        if record.phase != phase:
            where = record.phase or "unknown"
            raise PhaseError(
                f"{asked.purpose_name} is not due: round {asked.round} is {where!r} at this member"
            )

    def _enough(self, count: int, did: str) -> None:
        if count < self._terms.floor:
            raise QuorumError(f"{count} members {did}, {self._terms.floor} are needed")

    @staticmethod
    def _same(claimed: str, known: str, what: str) -> None:
        if claimed != known:
            raise TranscriptError(f"the {what} is not the one that this member knows")

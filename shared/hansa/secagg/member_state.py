"""What a member remembers between phases, sealed as one record per run so that it changes as a whole."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hansa.secagg.dealing import Held
from hansa.secagg.errors import RoundRefusedError, StateError
from hansa.secagg.keys import PublicKeys, RoundSecrets
from hansa.secagg.messages import SIGNED, VECTOR, Manifest
from hansa.secagg.seal import Seal
from hansa.secagg.store import Store
from hansa.wire import Array, Message

OFFERED, DEALT, OPENED, USED, MASKED, CONFIRMED, UNMASKED = (
    "offered", "dealt", "opened", "used", "masked", "confirmed", "unmasked",
)  # fmt: skip
MAX_AHEAD = 4  # rounds for which keys lie ready
_LAST_ROUND = 2**53 - 1  # of any run; see `messages.RoundNumber`


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Answer(_Record):
    """A reply as it was given, to be given again byte for byte.

    Attributes:
        request_sha256: of the kind and the signed line of the request that it answers; the line names its arrays' hashes.
        kind, line: the reply's kind and signed statement.
        arrays: shape and bytes of each array; of the masked vector only the shape, the bytes are stored apart.
    """

    request_sha256: str
    kind: str
    line: str
    arrays: dict[str, tuple[str, tuple[int, ...], bytes]]

    @cached_property
    def json_text(self) -> str:
        """The record as JSON, made once: an answer never changes, and is stored with every later one."""
        return self.model_dump_json()

    @classmethod
    def of(cls, request: Message, reply: Message, *, apart: bool) -> Answer:
        """The record of a reply; `apart` leaves the masked vector's bytes out."""
        arrays = {
            name: (array.dtype.str, array.shape, b"" if apart and name == VECTOR else array.tobytes())
            for name, array in reply.arrays.items()
        }
        return cls.model_construct(
            request_sha256=sha256_of_signed(request), kind=reply.kind, line=reply.text(SIGNED), arrays=arrays
        )

    def message(self, stored: bytes | None) -> Message:
        """The reply again; `stored` are the bytes of the masked vector, where they are kept apart."""
        arrays: dict[str, Array] = {
            name: np.frombuffer(
                stored if stored is not None and name == VECTOR else data, dtype=dtype
            ).reshape(shape)
            for name, (dtype, shape, data) in self.arrays.items()
        }
        return Message(self.kind, {SIGNED: self.line}, arrays)


def sha256_of_signed(request: Message) -> str:
    """SHA-256 that tells a request from every other: of its kind and its signed line, which binds its arrays.

    `Context.read` has compared the arrays with the hashes in the line; nothing else is in the request.
    """
    return hashlib.sha256(f"{request.kind}\n{request.text(SIGNED)}".encode()).hexdigest()


class RoundState(_Record):
    """One round as a member sees it.

    Attributes:
        phase: the last thing that was done; empty before anything was.
        secrets: until the mask is used.
        offer: the member's own signed keys.
        keys: the public keys of all that offered any, in order of x.
        transcript: T_B.
        held: what each dealer's envelopes held, this member's own shares among them; erased when opened.
        manifest: the signed manifest, as a line.
        contributors, binding, y_sha256: of the vector that was masked.
        confirmed: the bytes of the `Confirm` statement.
        receipt: the coordinator's, once it came.
        answers: by kind of request.
    """

    phase: str = ""
    secrets: RoundSecrets | None = None
    offer: str = ""
    keys: dict[str, PublicKeys] = {}
    transcript: str = ""
    held: dict[str, Held] = {}
    manifest: str = ""
    contributors: tuple[str, ...] = ()
    binding: str = ""
    y_sha256: str = ""
    confirmed: bytes = b""
    receipt: str = ""
    answers: dict[str, Answer] = {}

    @property
    def json_text(self) -> str:
        """The record as JSON."""
        answers = ",".join(f'"{kind}":{answer.json_text}' for kind, answer in self.answers.items())
        return f'{self.model_dump_json(exclude={"answers"})[:-1]},"answers":{{{answers}}}}}'

    @property
    def own_secrets(self) -> RoundSecrets:
        """The round's secrets, which are there until the mask is used.

        Raises:
            StateError: they are gone.
        """
        if self.secrets is None:
            raise StateError("the secrets of a round are gone")
        return self.secrets


class MemberState(_Record):
    """A member's memory of one run.

    Attributes:
        masked_round: the last round whose mask was used; older ones are replays.
        step: the manifest's step in that round.
        retries: how often a step was summed again.
        settled_round, settled_step, settled_manifest_sha256: the last round whose survivors this member signed
            (or unmasked, where nothing is signed).
        rounds: by number.
    """

    masked_round: int = 0
    step: int = -1
    retries: int = 0
    settled_round: int = 0
    settled_step: int = -1
    settled_manifest_sha256: str = ""
    rounds: dict[int, RoundState] = {}

    @classmethod
    def load(cls, store: Store, seal: Seal, name: str) -> MemberState:
        """Open the record, or start one.

        Raises:
            StateError: it cannot be opened or read.
        """
        sealed = store.get(name)
        if sealed is None:
            return cls()
        try:
            return cls.model_validate_json(seal.open(name, sealed))
        except ValidationError:
            raise StateError(f"{name} holds no state that this release can read") from None

    def sealed(self, seal: Seal, name: str, made: dict[int, tuple[RoundState, str]] | None = None) -> bytes:
        """The record as it is stored under a name.

        Args:
            seal, name: under which key and name.
            made: the JSON of rounds as they were sealed last, which is used for those that have not changed, and replaced.
        """
        before = {} if made is None else made
        texts = {
            number: (one, before[number][1])
            if number in before and before[number][0] is one
            else (one, one.json_text)
            for number, one in self.rounds.items()
        }
        if made is not None:
            made.clear()  # of what is erased nothing stays
            made.update(texts)
        rounds = ",".join(f'"{number}":{text}' for number, (_, text) in texts.items())
        text = f'{self.model_dump_json(exclude={"rounds"})[:-1]},"rounds":{{{rounds}}}}}'
        return seal.seal(name, text.encode())

    def with_round(self, number: int, record: RoundState, **changes: Any) -> MemberState:
        """The state with one round changed; of rounds that only have keys, the oldest give way to new ones."""
        rounds = {**self.rounds, number: record}
        ahead = sorted(other for other in rounds if other > self.masked_round)
        kept = {other: rounds[other] for other in rounds if other not in ahead[:-MAX_AHEAD]}
        return self.model_copy(update={"rounds": kept, **changes})

    def ended(self) -> MemberState:
        """The state of a run that is over: every round is a replay, and only receipts are left."""
        receipts = {
            number: RoundState(receipt=one.receipt) for number, one in self.rounds.items() if one.receipt
        }
        return MemberState(masked_round=_LAST_ROUND, rounds=receipts)

    @property
    def is_ended(self) -> bool:
        """Whether the run is over."""
        return self.masked_round == _LAST_ROUND

    def check_follows(self, manifest: Manifest, max_retries: int) -> None:
        """Check that a manifest is new, and the next one after what this member knows.

        Raises:
            RoundRefusedError: it is replayed, sums again what is settled, is one retry too many, or leaves out a
                round that this member has seen completed.
        """
        if manifest.round <= self.masked_round or manifest.step < self.step:
            raise RoundRefusedError(
                f"round {manifest.round}, step {manifest.step} is not after what was summed already"
            )
        if manifest.step == self.settled_step:
            raise RoundRefusedError(f"step {manifest.step} is settled; its survivors are signed")
        if manifest.step == self.step and self.retries >= max_retries:
            raise RoundRefusedError(f"step {manifest.step} would be retry {self.retries + 1} of this run")
        same = manifest.previous_manifest_sha256 == self.settled_manifest_sha256
        if manifest.previous_round < self.settled_round or (
            manifest.previous_round == self.settled_round > 0 and not same
        ):
            raise RoundRefusedError(f"round {manifest.round} does not follow from round {self.settled_round}")

    def masking(self, manifest: Manifest, record: RoundState) -> tuple[MemberState, list[int]]:
        """The state in which a round's mask is used, and the rounds that are too old to be asked about again."""
        old = [number for number in self.rounds if number < self.masked_round]
        state = self.with_round(
            manifest.round,
            record,
            masked_round=manifest.round,
            step=manifest.step,
            retries=self.retries + (manifest.step == self.step),
        )
        kept = {number: one for number, one in state.rounds.items() if number not in old}
        return state.model_copy(update={"rounds": kept}), old

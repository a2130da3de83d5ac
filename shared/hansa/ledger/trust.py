"""The public keys that an auditor must have compared with their owners: all that a log is believed by.

They come from the members, over another channel than the logs do. A file of keys that lies beside the logs says who
its writer claims to be, and nothing more: compare `TrustedKeys.fingerprint` before believing it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hansa.agreement.section import Name, Sha256
from hansa.canonical import canonical_hash
from hansa.errors import Problem
from hansa.identity.errors import RosterError
from hansa.identity.keys import fingerprint
from hansa.identity.roster import Roster
from hansa.ledger.checkpoint import LogPolicy
from hansa.ledger.entry import P256, LogKey, WitnessKey
from hansa.ledger.errors import TrustedKeysError
from hansa.ledger.note import VerifierKey
from hansa.ledger.signed import Agreed, Keyring

KEYS_NAME = "keys.json"
_MAX_PROBLEMS = 10  # told one by one
MAX_KEYS_BYTES = 1024 * 1024  # a hundred members take 60 kB


class TrustedKeys(BaseModel):
    """Whose word counts about the logs of one agreement.

    Attributes:
        agreement_id: of the frozen agreement.
        quorum: t, how many witnesses must have cosigned the federation's log, and members approved what needs
            approval.
        members: pinned P-256 key by member, in the agreement's order.
        coordinator: the coordinator's.
        auditors: of those who may attest.
        federation_log: the key of the federation's log; its name is the log's origin.
        logs: the key of each member's own log.
        witnesses: under which each member cosigns.
        officers: of each member's privacy officer, who alone grants budgets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    agreement_id: Sha256
    quorum: Annotated[int, Field(ge=1, le=100)]
    members: Annotated[dict[Name, P256], Field(min_length=1, max_length=100)]
    coordinator: P256
    auditors: dict[Name, P256] = {}
    federation_log: LogKey
    logs: dict[Name, LogKey]
    witnesses: dict[Name, WitnessKey]
    officers: dict[Name, P256]

    @model_validator(mode="after")
    def _coherent(self) -> TrustedKeys:
        wrong = list(self._problems())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _problems(self) -> Iterator[str]:
        try:
            self.roster.active  # noqa: B018  # making the roster checks it
        except RosterError as error:
            yield "; ".join(map(str, error.problems))
        for place in ("logs", "witnesses", "officers"):
            for name in sorted(set(getattr(self, place)) - set(self.members)):
                yield f"{place}: {name!r} is no member"
        if self.quorum > len(self.witnesses):
            yield f"quorum: {self.quorum} of {len(self.witnesses)} witnesses"
        noted = [
            VerifierKey.parse(text)
            for text in (self.federation_log, *self.logs.values(), *self.witnesses.values())
        ]
        counts = (
            Counter(key.name for key in noted),
            Counter(key.public.hex() for key in noted),
            Counter(
                [*self.members.values(), *self.auditors.values(), self.coordinator, *self.officers.values()]
            ),
        )
        for counted in counts:
            for what in sorted(one for one, count in counted.items() if count > 1):
                yield f"{what[:40]!r} stands for two parties"

    @cached_property
    def roster(self) -> Roster:
        """Names and keys as the agreement pins them."""
        return Roster(self.members, self.coordinator, auditors=self.auditors)

    @cached_property
    def keyring(self) -> Keyring:
        """Whose signatures count in the entries of a log."""
        return Keyring({self.agreement_id: Agreed.of(self.roster, self.quorum)}, self.officers)

    @cached_property
    def federation(self) -> LogPolicy:
        """Whose word counts about the federation's log: its own, and that of a quorum of witnesses."""
        witnesses = tuple(map(VerifierKey.parse, self.witnesses.values()))
        return LogPolicy(VerifierKey.parse(self.federation_log), witnesses, self.quorum)

    @cached_property
    def own_logs(self) -> dict[str, LogPolicy]:
        """Whose word counts about each member's own log: its own."""
        return {name: LogPolicy(VerifierKey.parse(text)) for name, text in self.logs.items()}

    @property
    def fingerprint(self) -> str:
        """What two people read to each other to know that they have the same keys, members in the same order."""
        return fingerprint(canonical_hash({**self.model_dump(), "order": list(self.members)}))

    @property
    def text(self) -> str:
        """The keys as JSON, members in their order."""
        return json.dumps(self.model_dump(), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write `text` to a file.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_text(self.text, encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrustedKeys:
        """Read a file of keys.

        Raises:
            TrustedKeysError: it cannot be read, or holds no keys that could be trusted; says the first places.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_KEYS_BYTES + 1)
        except OSError as error:
            raise TrustedKeysError(
                f"cannot read the keys {path}", [Problem(str(path), error.strerror or "cannot be read")]
            ) from None
        if len(data) > MAX_KEYS_BYTES:
            raise TrustedKeysError(f"{path} holds no keys", [Problem(str(path), "is too large")])
        tree: object = None
        try:
            tree = json.loads(data, object_pairs_hook=_each_once)
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise TrustedKeysError(f"{path} holds no keys", list(_problems(path, tree, error))) from None
        except (ValueError, RecursionError) as error:
            raise TrustedKeysError(f"{path} is not JSON", [Problem(str(path), str(error))]) from None


def _problems(path: Path, tree: object, error: ValidationError) -> Iterator[Problem]:
    if isinstance(tree, dict) and "schema_version" in tree:  # of a run, or of an audit
        yield Problem(str(path), "is a report, not keys", "the file of keys is called " + KEYS_NAME)
        return
    told = error.errors(include_url=False, include_input=False, include_context=False)
    for item in told[:_MAX_PROBLEMS]:
        yield Problem(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, "))
    if len(told) > _MAX_PROBLEMS:
        yield Problem(str(path), f"has {len(told) - _MAX_PROBLEMS} more")


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name that stands twice: one reader would take the first key, another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found

"""The agreements that a node serves: each in a folder of its home, with the keys that it believes and model 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.amendments import RosterInForce, roster_in_force
from hansa.agreement.roster import roster_of
from hansa.errors import Problem, UsageError
from hansa.identity.errors import ForeignKeyError, NodeFileError, UnknownSignerError
from hansa.ledger import TrustedKeys, VerifierKey
from hansa.ledger.errors import TrustedKeysError
from hansa.vectors import read_npy
from hansa.wire import array_sha256
from hansa_client.federation_log import FederationLog
from hansa_client.node_file import NodeHome

Vector: TypeAlias = npt.NDArray[np.float64]

AGREEMENT, KEYS, MODEL = "agreement.toml", "keys.json", "model-0.npy"


@dataclass(frozen=True)
class Accepted:
    """One agreement in a node's home.

    Attributes:
        folder: where it lies; amendments are put beside it.
    """

    folder: Path

    @cached_property
    def agreement(self) -> Agreement:
        """As frozen; see `read_agreement`."""
        return read_agreement(self.folder / AGREEMENT)

    @cached_property
    def keys(self) -> TrustedKeys:
        """See `TrustedKeys.read`."""
        return TrustedKeys.read(self.folder / KEYS)

    @cached_property
    def standing(self) -> RosterInForce:
        """The keys in force."""
        return roster_in_force(self.agreement, [self.folder])

    @property
    def federation(self) -> FederationLog:
        """What is pinned about the federation's log."""
        witnesses = {member: VerifierKey.parse(text) for member, text in self.keys.witnesses.items()}
        return FederationLog(
            VerifierKey.parse(self.keys.federation_log), witnesses, self.keys.quorum, self.keys.keyring
        )

    def model_zero(self) -> Vector:
        """Model 0, whose hash the agreement holds.

        Raises:
            UsageError: it is not there, or is another.
        """
        path = self.folder / MODEL
        try:
            model: Vector = read_npy(path)
        except (OSError, ValueError):
            raise UsageError(
                f"cannot read {path}", remedy="Accept the agreement again: hansa node accept."
            ) from None
        if array_sha256(model) != self.agreement.require_frozen().model.initial_sha256:
            raise UsageError(f"{path} is not model 0 of the agreement", remedy="Accept the agreement again.")
        return model


def accepted_in(home: NodeHome) -> list[Accepted]:
    """The agreements of a home, in order of their folders' names."""
    return [Accepted(path.parent) for path in sorted(home.agreements.glob(f"*/{AGREEMENT}"))]


def accepted_of(home: NodeHome, agreement_id: str | None = None) -> Accepted:
    """One of them: the only one, or the one whose id begins so.

    Raises:
        UsageError: there is none, or several.
    """
    found = [
        one
        for one in accepted_in(home)
        if agreement_id is None or one.agreement.agreement_id.startswith(agreement_id)
    ]
    if len(found) != 1:
        served = ", ".join(one.agreement.agreement_id[:16] for one in accepted_in(home)) or "none"
        raise UsageError(
            f"{len(found)} agreements of this node are meant, where one is needed",
            remedy=f"Name one by the beginning of its id; it serves {served}.",
        )
    return found[0]


def check_keys(home: NodeHome, agreement: Agreement, keys: TrustedKeys) -> None:
    """See that agreement and keys belong together and are this node's to believe.

    Raises:
        TrustedKeysError: everything that does not fit.
        UnknownSignerError, ForeignKeyError: the node has no part in it, or has another key.
    """
    roster, name = roster_of(agreement), home.settings.name
    problems = []
    if keys.agreement_id != agreement.agreement_id:
        problems.append(Problem("agreement_id", "is of another agreement"))
    elif keys.roster.sha256 != roster.sha256:
        problems.append(Problem("members", "are not the keys that the agreement pins"))
    if home.settings.role == "member":
        if keys.officers.get(name) != home.officer().public_key:
            problems.append(Problem(f"officers.{name}", "is not the officer whose card the node holds"))
        if keys.witnesses.get(name) != home.witness_signer().key.text:
            problems.append(Problem(f"witnesses.{name}", "is not this node's witness key"))
        if keys.logs.get(name) != home.log_signer().key.text:
            problems.append(Problem(f"logs.{name}", "is not the key of this node's log"))
    if problems:
        raise TrustedKeysError("the keys are not those of this agreement and this node", problems)
    if keys.members.get(name) in home.settings.former_keys:
        return
    try:
        roster.require_own(home.signer())
    except (UnknownSignerError, ForeignKeyError) as error:
        raise type(error)(f"{error.cause}, by the agreement {agreement.agreement_id[:16]}") from None


def accept(home: NodeHome, frozen: Path, keys: TrustedKeys, model: Vector) -> Accepted:
    """Put an agreement into a home, so that its node serves it.

    Args:
        home: of the node.
        frozen: the agreement's file.
        keys: that were checked with `check_keys`.
        model: float64 [d], model 0.

    Raises:
        NodeFileError: it cannot be written.
    """
    agreement = read_agreement(frozen)
    folder = home.agreements / agreement.agreement_id[:16]
    new = folder.with_name(folder.name + ".new")
    try:
        new.mkdir(parents=True, exist_ok=True)
        (new / AGREEMENT).write_bytes(frozen.read_bytes())
        (new / KEYS).write_text(keys.text, encoding="utf-8")
        with (new / MODEL).open("wb") as file:
            np.save(file, model, allow_pickle=False)
        if folder.exists():
            for path in sorted(new.iterdir()):
                path.replace(folder / path.name)
            new.rmdir()
        else:
            new.rename(folder)
    except OSError as error:
        raise NodeFileError(
            f"cannot put the agreement into {home.agreements}",
            [Problem(str(error.filename or home.agreements), error.strerror or "cannot be written")],
            remedy="",
        ) from None
    return Accepted(folder)


def withdraw(home: NodeHome, agreement_id: str) -> Path:
    """Take an agreement out of a home; where it lies now.

    Raises:
        UsageError: the home does not serve it, or it cannot be moved.
    """
    folder = home.agreements / agreement_id[:16]
    if not folder.is_dir():
        raise UsageError(
            f"{home.folder} does not serve agreement {agreement_id[:16]}",
            remedy="See the folder `agreements`.",
        )
    target = home.folder / "withdrawn" / agreement_id[:16]
    try:
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
    except OSError as error:
        raise UsageError(f"cannot move {folder}: {error.strerror}", remedy=f"Look at {target}.") from None
    return target

"""`coordinator.toml`: what the coordinator of one league says about its own machine, and the folder around it.

A home is one league: one frozen agreement, the keys that its parties believe, the federation's log, and the runs.
Needs neither torch nor flwr.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.amendments import Proposal, read_proposals
from hansa.agreement.document import told
from hansa.agreement.publication_rules import reads_public_texts
from hansa.agreement.roster import roster_of
from hansa.agreement.section import Section, Text
from hansa.agreement.terms import Terms
from hansa.errors import CoordinatorError, Problem, UsageError
from hansa.following.address import Address
from hansa.identity import COORDINATOR, Roster, Signer
from hansa.identity.cards import SUFFIX, read_card
from hansa.identity.errors import RosterError
from hansa.ledger import NoteSigner, TrustedKeys
from hansa.observing.settings import METRICS_TOML, Metrics

FILE = "coordinator.toml"
READERS = (
    "readers"  # in the league's folder: cards of auditors that read the log and have no part in the agreement
)
_LEAST_REPLY_BYTES = 2**28
HOME = "HANSA_COORDINATOR_HOME"  # of processes that the coordinator starts
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
AddressText = Annotated[str, StringConstraints(min_length=3, max_length=300)]


class PublicTexts(Section):
    """`[public_texts]`: what steps of compression may read, where an agreement on texts has such steps.

    Attributes:
        file: one text a line, in UTF-8; a relative path starts at the folder of `coordinator.toml`.
        source: where they come from, for the model card; the coordinator vouches for it.
    """

    file: PathText | None = None
    source: Text = ""


class CoordinatorFile(Section):
    """The settings of `coordinator.toml`; relative paths start at its folder.

    Attributes:
        listen: ``HOST:PORT`` of the SuperLink, which members dial.
        ledger: ``HOST:PORT`` of the ledger service; empty for none.
        wait_for_all_s: how long a run that begins waits for members beyond those that it needs.
        absent_after_s: how long a member that has lost its place at the SuperLink is waited for in a phase.
        reply_bytes: that replies of one member may take on this machine's disk at a time; by default what follows from the model.
        metrics: where numbers of the runs are served, if anywhere.
        public_texts: that steps of compression may read.
        identity_key, log_key, certificate, authority, revocations: files of the home; written by `hansa coordinator init`.
    """

    listen: AddressText
    ledger: str = ""
    wait_for_all_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    absent_after_s: Annotated[float, Field(ge=0, le=86_400)] = 15.0
    reply_bytes: Annotated[int, Field(ge=2**24, le=2**50)] | None = None
    metrics: Metrics = Metrics()
    public_texts: PublicTexts = PublicTexts()
    identity_key: PathText = "identity.key"
    log_key: PathText = "log.key"
    certificate: PathText = "coordinator.crt"
    authority: PathText = "ca.crt"
    revocations: PathText = "ca.crl"


@dataclass(frozen=True)
class CoordinatorHome:
    """A coordinator's settings and where its things are.

    Attributes:
        folder: of `coordinator.toml`.
        settings: what it says.
    """

    folder: Path
    settings: CoordinatorFile

    @property
    def league(self) -> Path:
        """What was agreed: agreement, keys, amendments, links of the members."""
        return self.folder / "league"

    @property
    def readers(self) -> Mapping[str, str]:
        """Whom the coordinator lets read its log beyond the parties of the agreement: public key by name.

        Raises:
            RosterError: a card in the folder is none, or two bear one name.
        """
        cards = [read_card(path) for path in sorted((self.league / READERS).glob(f"*{SUFFIX}"))]
        found = {card.name: card.public_key for card in cards}
        if len(found) < len(cards):
            raise RosterError(
                "two readers have one name", [Problem(str(self.league / READERS), "hold one card each")]
            )
        return found

    @property
    def state(self) -> Path:
        """What the coordinator writes; nothing of it is ever edited."""
        return self.folder / "coordinator"

    @property
    def agreement_file(self) -> Path:
        """The frozen agreement."""
        return self.league / "agreement.toml"

    @property
    def keys_file(self) -> Path:
        """The keys that everybody believes."""
        return self.league / "keys.json"

    @property
    def model_zero(self) -> Path:
        """Model 0, float64 in numpy's format."""
        return self.league / "model-0.npy"

    @property
    def reply_bytes(self) -> int:
        """That replies of one member may take on this machine's disk at a time.

        A reply carries at most one masked number of 4 bytes for each of the model's: half as many bytes as model 0 has in float64. There is
        room for four, and at least a quarter of a gigabyte.
        """
        if self.settings.reply_bytes is not None:
            return self.settings.reply_bytes
        size = self.model_zero.stat().st_size if self.model_zero.is_file() else 0
        return max(_LEAST_REPLY_BYTES, 2 * size)

    @property
    def log(self) -> Path:
        """The federation's log."""
        return self.state / "federation.sqlite"

    @property
    def runs(self) -> Path:
        """A folder for each run, and their register."""
        return self.state / "runs"

    @property
    def flower(self) -> Path:
        """What Flower keeps: its home, its database."""
        return self.state / "flower"

    def path(self, text: str) -> Path:
        """A path of the settings."""
        return self.folder / text

    @property
    def listen(self) -> Address:
        """Of the SuperLink."""
        return Address.parse(self.settings.listen)

    @cached_property
    def agreement(self) -> Agreement:
        """As frozen; see `read_agreement`."""
        return read_agreement(self.agreement_file)

    @cached_property
    def keys(self) -> TrustedKeys:
        """See `TrustedKeys.read`."""
        return TrustedKeys.read(self.keys_file)

    @cached_property
    def amendments(self) -> tuple[Proposal, ...]:
        """The amendments that are in force, in their order."""
        from hansa.agreement.amendments import apply_amendments

        proposals = read_proposals(self.agreement, [self.league])
        judged = apply_amendments(
            roster_of(self.agreement), self.agreement.agreement_id, proposals
        ).amendments
        return tuple(one.proposal for one in judged if one.state == "in force")

    @cached_property
    def roster(self) -> Roster:
        """The keys in force."""
        from hansa.agreement.amendments import roster_in_force

        return roster_in_force(self.agreement, [self.league]).roster

    def signer(self) -> Signer:
        """The coordinator's own key."""
        return Signer.load(COORDINATOR, self.path(self.settings.identity_key))

    def log_signer(self) -> NoteSigner:
        """The key of the federation's log."""
        return NoteSigner.load(self.path(self.settings.log_key))

    def check(self) -> None:
        """See that agreement, keys and own keys belong together.

        Raises:
            CoordinatorError: everything that does not.
        """
        keys, roster = self.keys, roster_of(self.agreement)
        problems = []
        if keys.agreement_id != self.agreement.agreement_id:
            problems.append(Problem(str(self.keys_file), "are the keys of another agreement"))
        elif keys.roster.sha256 != roster.sha256:
            problems.append(Problem(str(self.keys_file), "names other keys of parties than the agreement"))
        if keys.federation_log != self.log_signer().key.text:
            problems.append(
                Problem(str(self.keys_file), "names another key for the federation's log than this home has")
            )
        if roster.coordinator != self.signer().public_key:
            problems.append(
                Problem(str(self.agreement_file), "pins another key for the coordinator than this home has")
            )
        missing = set(keys.members) - set(keys.witnesses)
        problems += [
            Problem(str(self.keys_file), f"has no witness key of {name!r}") for name in sorted(missing)
        ]
        problems += self.lacking_texts(self.agreement.terms)
        if problems:
            raise CoordinatorError(f"{self.folder} is not the home of a league", problems)

    def lacking_texts(self, terms: Terms) -> Iterator[Problem]:
        """What is missing of the public texts that steps of compression read."""
        texts = self.settings.public_texts
        if not (terms.published and reads_public_texts(terms.publication, terms.data)):
            return
        if texts.file is None or not texts.source.strip():
            what = "names no file and source, and steps of publication.compress read public texts"
            yield Problem("public_texts", what, f"see [public_texts] in {FILE}")
        elif not self.path(texts.file).is_file():
            yield Problem("public_texts.file", f"{self.path(texts.file)} is not there")


def read_home(folder: Path) -> CoordinatorHome:
    """Read the `coordinator.toml` of a folder.

    Raises:
        CoordinatorError: everything that is wrong with it.
    """
    path = folder / FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise CoordinatorError(
            f"cannot read {path}",
            [Problem(str(path), reason, "`hansa coordinator init FROZEN --home DIR` makes it")],
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise CoordinatorError(f"cannot read {path}", [Problem(str(path), "is not TOML in UTF-8")]) from None
    try:
        settings = CoordinatorFile.model_validate(tree)
    except ValidationError as error:
        raise CoordinatorError(f"{path} cannot be used", told(error)) from None
    problems = []
    for name in ("listen", "ledger"):
        value = getattr(settings, name)
        try:
            if value or name == "listen":
                Address.parse(value)
        except UsageError as error:
            problems.append(Problem(name, error.cause, error.what_to_do))
    if problems:
        raise CoordinatorError(f"{path} cannot be used", problems)
    return CoordinatorHome(folder, settings)


def coordinator_toml(listen: str, ledger: str) -> str:
    """The text of a new `coordinator.toml`, every setting explained."""
    return f"""\
# The coordinator of one league: where it listens, and how long it waits. Relative paths start at this file's folder.

# The SuperLink, which members dial over TLS. This machine's certificate must name the host under which they do, and
# 127.0.0.1, where the coordinator's own processes meet.
listen = "{listen}"

# The ledger service, for the machines of members and auditors; "" for none.
ledger = "{ledger}"

# A run that begins waits so many seconds for members beyond those that it needs.
wait_for_all_s = 30.0

# A member that has lost its place at the SuperLink is waited for so many seconds in a phase, if enough others are there.
absent_after_s = 15.0

# Replies of one member may take so many bytes on this disk at a time. Without it: twice the size of model-0.npy, which is four
# replies, and at least 268435456.
# reply_bytes = 268435456

# Files of this home, which `hansa node` has put there.
identity_key = "identity.key"
log_key = "log.key"
certificate = "coordinator.crt"
authority = "ca.crt"
revocations = "ca.crl"

# Texts that everybody may read, one a line: for the steps `distil` and `vocabulary` of agreements on texts. Never
# records of members: what is learned from them here would be charged to nobody.
[public_texts]
# file = "public.txt"
# source = "…"                      # where they come from; stands in the model card
{METRICS_TOML}"""

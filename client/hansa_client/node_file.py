"""`node.toml`: what one party says about its own node, and the folder that it stands in.

Nothing in it is part of an agreement or of a hash. Members, the coordinator and auditors each have one, since each
signs with a key of its own; what only a member has (state, sealing key, data, retries) only a member may set.
Needs neither torch nor flwr.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, ValidationError

from hansa.agreement.document import told
from hansa.agreement.keys import PublicKey
from hansa.agreement.local import Column, Performance, Source
from hansa.agreement.section import Name, Section
from hansa.errors import Problem
from hansa.identity import COORDINATOR, Signer
from hansa.identity.cards import Card
from hansa.identity.errors import KeyFileError, NodeFileError
from hansa.identity.keys import CREDENTIALS
from hansa.ledger.note import NoteSigner, SignatureType
from hansa.ledger.officer import card_name, read_officer
from hansa.observing.settings import METRICS_TOML, Metrics
from hansa_client.policy import Policy

FILE = "node.toml"
_MEMBERS_OWN = (
    "witness_key", "officer", "former_keys", "sealing_key", "state", "data", "source", "columns",
    "performance", "policy", "evaluation", "max_retries", "metrics",
)  # fmt: skip
CREDENTIAL = "credential:"  # before the name of a systemd credential
LEDGER = "ledger.sqlite"  # in the state folder
_NONCE = "recovery.nonce"

Role: TypeAlias = Literal["member", "coordinator", "auditor"]
PathText: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]


class NodeEvaluation(Section):
    """`[evaluation]` of `node.toml`: what a member judges models on, where an agreement asks for that.

    Attributes:
        data: records of its own, under agreements with ``units = "own-file"``; read like those of training.
        dataset_id: of the budget for units that are held out of training, which the privacy officer has granted as disjoint
            from that of training. Without one, evaluations are charged with training.
        unprotected_files: whether files are run where the machine cannot put up every wall around them.
    """

    data: PathText | None = None
    dataset_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    unprotected_files: bool = False


class NodeFile(Section):
    """The settings of `node.toml`; relative paths start at its folder.

    Attributes:
        name: as in agreements; ``coordinator`` is the coordinator's and nobody else's.
        role: what the node is.
        identity_key: the private key, mode 0600.
        certificate: from the consortium's authority; absent until there is one.
        log_key: the private key of the member's own log, or of the federation's at the coordinator; mode 0600.
        witness_key: the private key under which a member cosigns the federation's log, mode 0600.
        officer: the public card of the member's privacy officer, whose key is elsewhere.
        former_keys: public keys that amendments have replaced; what the member signed with them stands in its ledger.
        sealing_key: 32 bytes that the state is sealed with, mode 0600 and outside the state folder, or
            ``credential:NAME`` for what systemd hands over. A member's.
        state: the folder of budget and rounds, mode 0700. A member's.
        data: what the member trains on. A member's.
        superlink: ``HOST:PORT`` of the coordinator's SuperLink, which the node dials. A member's or an auditor's.
        link_key: the private key of the node's place there, mode 0600.
        authority, revocations: the consortium's certificate and its list of revoked ones; `hansa node certificate` puts
            them there.
        source, columns: how the data are read and where each column of an agreement is found. A member's.
        performance: how fast it trains and in how much memory; never what it promises. A member's.
        policy: in what the member takes part. A member's.
        evaluation: what it judges models on. A member's.
        metrics: where its numbers are served, if anywhere. A member's.
        max_retries: how often in one run a step may be summed again, each time charged anew. A member's.
    """

    name: Name
    role: Role = "member"
    identity_key: PathText = "identity.key"
    certificate: PathText | None = None
    log_key: PathText = "log.key"
    witness_key: PathText = "witness.key"
    officer: PathText | None = None
    former_keys: Annotated[tuple[PublicKey, ...], Field(max_length=100, strict=False)] = ()
    sealing_key: PathText | None = None
    state: PathText | None = None
    data: PathText | None = None
    superlink: Annotated[str, StringConstraints(min_length=3, max_length=300)] | None = None
    link_key: PathText = "link.key"
    authority: PathText = "ca.crt"
    revocations: PathText = "ca.crl"
    source: Source = Source()
    columns: Mapping[str, Column | str | int] = Field(default_factory=dict)
    performance: Performance = Performance()
    policy: Policy = Policy()
    evaluation: NodeEvaluation = NodeEvaluation()
    metrics: Metrics = Metrics()
    max_retries: Annotated[int, Field(ge=0, le=100)] = 2


@dataclass(frozen=True)
class NodeHome:
    """A node's settings and the folder that its relative paths start from.

    Attributes:
        folder: of `node.toml`.
        settings: what it says.
    """

    folder: Path
    settings: NodeFile

    @property
    def identity_key(self) -> Path:
        """Where the private key is."""
        return self.folder / self.settings.identity_key

    @property
    def certificate(self) -> Path:
        """Where the certificate is, or will be."""
        return self.folder / (self.settings.certificate or f"{self.settings.name}.crt")

    @property
    def state(self) -> Path:
        """The state folder of a member.

        Raises:
            NodeFileError: the node is no member's.
        """
        return self.folder / self._members("state", self.settings.state)

    @property
    def sealing_key(self) -> Path:
        """Where the sealing key of a member is, also as a systemd credential.

        Raises:
            NodeFileError: the node is no member's, or systemd handed nothing over.
        """
        text = self._members("sealing_key", self.settings.sealing_key)
        if not text.startswith(CREDENTIAL):
            return self.folder / text
        handed = os.environ.get(CREDENTIALS)
        if not handed:
            raise NodeFileError(
                f"{self.folder / FILE} names a systemd credential, and this process has none",
                [Problem("sealing_key", text, "start the node by its unit, with LoadCredential=")],
                remedy="",
            )
        return Path(handed) / text.removeprefix(CREDENTIAL)

    @property
    def ledger(self) -> Path:
        """Where the ledger of a member is, or will be.

        Raises:
            NodeFileError: the node is no member's.
        """
        return self.state / LEDGER

    @property
    def link_key(self) -> Path:
        """Where the key of the node's place at a SuperLink is."""
        return self.folder / self.settings.link_key

    @property
    def authority(self) -> Path:
        """Where the consortium's certificate is, or will be."""
        return self.folder / self.settings.authority

    @property
    def revocations(self) -> Path:
        """Where its list of revoked certificates is, or will be."""
        return self.folder / self.settings.revocations

    @property
    def link_place(self) -> Path:
        """Where the node keeps by which number the SuperLink knows it."""
        return self.folder / "link.place"

    @property
    def agreements(self) -> Path:
        """The agreements that the node serves, each in a folder of its own."""
        return self.folder / "agreements"

    @property
    def superlink(self) -> str:
        """Which SuperLink the node dials.

        Raises:
            NodeFileError: none is named.
        """
        if self.settings.superlink is None:
            raise NodeFileError(
                f"{self.folder / FILE} names no SuperLink",
                [Problem("superlink", "is missing", 'as the coordinator tells it: superlink = "HOST:PORT"')],
                remedy="",
            )
        return self.settings.superlink

    @property
    def recovery_nonce(self) -> Path:
        """Where the nonce of a recovery waits for its checkpoint.

        Raises:
            NodeFileError: the node is no member's.
        """
        return self.state / _NONCE

    def log_signer(self) -> NoteSigner:
        """The key that signs the checkpoints of the node's log.

        Raises:
            KeyFileError: the file is missing, readable by others, or not of a log's key.
            NoteFormatError: it holds something else.
        """
        return self._note_signer(self.settings.log_key, SignatureType.LOG)

    def witness_signer(self) -> NoteSigner:
        """The key under which the member cosigns; see `log_signer`."""
        return self._note_signer(self.settings.witness_key, SignatureType.WITNESS)

    def officer(self) -> Card:
        """The public card of the member's privacy officer.

        Raises:
            NodeFileError: the node is no member's, or there is no card yet.
            RosterError: it is no card, or somebody else's.
        """
        self._members("state", self.settings.state)
        name = self.settings.name
        path = self.folder / (self.settings.officer or card_name(name))
        if not path.exists():
            raise NodeFileError(
                f"{path} is missing: nobody could grant {name!r} a budget",
                [Problem("officer", "has no card here", f"`hansa node officer {name} --out DIR` makes it")],
                remedy="Have the privacy officer make a key on another machine, and put the card here.",
            )
        return read_officer(path, name)

    def _note_signer(self, file: str, kind: SignatureType) -> NoteSigner:
        path = self.folder / file
        signer = NoteSigner.load(path)
        if signer.key.kind is not kind:
            raise KeyFileError(f"{path} is not the key of a {kind.name.lower()}")
        return signer

    def signer(self) -> Signer:
        """The node's name and private key.

        Raises:
            KeyFileError: the key is missing, readable by others, or no P-256 key.
        """
        return Signer.load(self.settings.name, self.identity_key)

    def _members(self, key: str, value: str | None) -> str:
        if value is None:
            raise NodeFileError(
                f"{self.folder / FILE} is no member's",
                [Problem(key, f"a node with role = {self.settings.role!r} has none")],
                remedy="Name the home of a member.",
            )
        return value


def read_home(folder: Path) -> NodeHome:
    """Read the `node.toml` of a folder.

    Raises:
        NodeFileError: everything that is wrong with it.
    """
    path = folder / FILE
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NodeFileError(
            f"cannot read {path}",
            [
                Problem(
                    str(path),
                    error.strerror or "cannot be read",
                    "`hansa node init NAME --home DIR` makes it",
                )
            ],
            remedy="",
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        # the parser's own words could repeat what stands there
        raise NodeFileError(f"cannot read {path}", [Problem(str(path), "is not TOML in UTF-8")]) from None
    settings, problems = _validated(tree, folder)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise NodeFileError(f"{path} has {count}", problems)
    return NodeHome(folder, settings)


def _validated(tree: dict[str, Any], folder: Path) -> tuple[NodeFile, list[Problem]]:
    """The settings and what is wrong with them; settings that cannot be read do not hide what breaks a rule."""
    try:
        settings = NodeFile.model_validate(tree)
    except ValidationError as error:
        broken = {str(item["loc"][0]) for item in error.errors(include_input=False)}
        sound = {key: value for key, value in tree.items() if key not in broken}
        settings = NodeFile.model_validate({"name": "unknown", **sound})
        unknown = broken | ({"role"} if "name" in broken else set())
        rules = (
            [] if "role" in broken else [one for one in _rules(settings, folder) if one.place not in unknown]
        )
        return settings, [*told(error), *rules]
    return settings, list(_rules(settings, folder))


def _rules(settings: NodeFile, folder: Path) -> Iterator[Problem]:
    if (settings.role == "coordinator") != (settings.name == COORDINATOR):
        yield Problem(
            "role",
            f"{settings.role!r} does not go with the name {settings.name!r}",
            f"the coordinator, and nobody else, is called {COORDINATOR!r}",
        )
    if settings.role != "member":
        for name in _MEMBERS_OWN:
            if name in settings.model_fields_set:
                yield Problem(name, f"is a member's, and role = {settings.role!r}", "leave it out")
        if settings.role == "auditor" and "log_key" in settings.model_fields_set:
            yield Problem("log_key", "is of who writes a log, and role = 'auditor'", "leave it out")
        return
    for name in ("sealing_key", "state"):
        if getattr(settings, name) is None:
            yield Problem(name, "is missing", "every member has one")
    if settings.sealing_key is None or settings.state is None:
        return
    if settings.sealing_key.startswith(CREDENTIAL):
        name = settings.sealing_key.removeprefix(CREDENTIAL)
        if not name or "/" in name or name in {".", ".."}:
            yield Problem(
                "sealing_key", f"{name!r} is no name of a credential", "as in LoadCredential=NAME:FILE"
            )
        return
    state = (folder / settings.state).resolve()
    if (folder / settings.sealing_key).resolve().is_relative_to(state):
        yield Problem(
            "sealing_key",
            "lies in the state folder, so that a copy of the state could be opened",
            "move it outside",
        )


def node_toml(name: str, role: Role, superlink: str | None = None) -> str:
    """The text of a new `node.toml`, every setting explained."""
    common = f"""\
# The node of {name}: what it is and where its files are. Relative paths start at this file's folder.
# Nothing here is part of an agreement. Private keys stand in files of their own, never in this one.

name = "{name}"
role = "{role}"

# P-256, mode 0600: whoever has it signs as {name}.
identity_key = "identity.key"

# From the consortium's authority; `hansa node certificate` checks it and puts it there.
certificate = "{name}.crt"
"""
    dialled = f'superlink = "{superlink}"' if superlink else '# superlink = "league.example.org:8000"'
    linked = f"""
# The coordinator's SuperLink, which this node dials over TLS, and the key of its place there (P-384, mode 0600);
# {name}.link holds its public side. `hansa node certificate` puts the authority's two files here.
{dialled}
link_key = "link.key"
authority = "ca.crt"
revocations = "ca.crl"
"""
    if role == "auditor":
        return common + linked
    if role == "coordinator":
        return f"""{common}
# Ed25519, mode 0600: signs the checkpoints of the federation's log.
log_key = "log.key"
"""
    return f"""{common}
# Ed25519, mode 0600: the first signs the checkpoints of this member's own log, the second cosigns the federation's.
log_key = "log.key"
witness_key = "witness.key"

# The public card of the privacy officer, who alone grants budgets and whose key is on another machine.
officer = "{card_name(name)}"
{linked}
# Public keys of this member that amendments have replaced: what was signed with them stands in the ledger.
# former_keys = ["p256:..."]

# Budget and rounds are kept in `state` (mode 0700). Never put back a copy of it: it would forget what was spent.
state = "state"

# The state is sealed with this key (32 bytes, mode 0600). Keep it outside the state folder and out of the backups of
# it. Better still, let systemd hand it over: move the file where only root reads it, say in the node's unit
#   LoadCredential=hansa-sealing:/etc/hansa/sealing.key
# and here
#   sealing_key = "credential:hansa-sealing"
sealing_key = "sealing.key"

# What the member trains on: a file, or a folder of files. How they are read stands under [source] below.
# data = "/srv/hansa/data"

# How often in one run a step may be summed again after it failed. Each retry is charged to the budget anew; 0 allows
# none, and then a run ends where a step fails.
max_retries = 2

# In what this member takes part; whoever asks for something else gets no answer. An agreement is served once it lies
# in `agreements`, where `hansa node accept` puts it after it was signed. What may be spent is not said here but in
# the signed grant.
[policy]
# mechanisms = ["local"]            # "none" promises nothing, and is refused unless it is named here
# smallest_league = 3               # members of an agreement
# hours = "22:00-06:00"             # by this machine's clock; always, where it is left out
# charged_aborts = 2                # rounds of one run that were charged and came to nothing, before it is left
# threads = 4                       # processors that training may use
# memory_gib = 16.0                 # of this process
# gpu_memory_share = 0.5            # of the device, from 0 to 1

# On what it judges models by group, where an agreement asks for that (docs/fairness.md).
[evaluation]
# dataset_id = "..."                # of the budget for units held out of training; without it, of the one above
# data = "/srv/hansa/judged"        # under units = "own-file": records of their own
# unprotected_files = true          # run a model's file also where this machine lacks a wall around it

{METRICS_TOML}
# How fast it trains and in how much memory, as under [performance] of an agreement; never what is promised.
[performance]
# device = "auto"                   # auto, cpu, cuda or cuda:N

# How files are read: format, header, delimiter, encoding, decimal, missing, record.
[source]
format = "csv"

# Where an agreement's columns are found, where they are called otherwise: a name, a number, or a table that also
# translates the file's codes.
[columns]
# age_years = "age"
# diagnosis = {{ column = "dx", values = {{ "0" = "healthy", "1" = "disease" }} }}
"""

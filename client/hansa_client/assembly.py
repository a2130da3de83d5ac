"""A member's nodes, put together from its home: one for each accepted agreement, over one ledger."""

from __future__ import annotations

import logging
import resource
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import AgreementError
from hansa.ledger import SqliteLogStore, SqliteWitness
from hansa.ledger.errors import NoBudgetError
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa.privacy.rotation import Rotation
from hansa.secagg import FolderStore, Seal
from hansa_client.accepted import Accepted, accepted_in, check_keys
from hansa_client.desk import Answer, Desk
from hansa_client.ledger import MemberLedger
from hansa_client.mirror import Mirror
from hansa_client.node import LocalTraining, Node
from hansa_client.node_file import NodeHome
from hansa_client.node_ledger import opening, store_of
from hansa_client.policy import Policy
from hansa_client.recording import LedgerRecords
from hansa_client.records import NoRecords, Records
from hansa_client.summing import SumIdentity

if TYPE_CHECKING:
    from hansa_client.data import Dataset
    from hansa_client.evaluation.judging import Files

Vector: TypeAlias = npt.NDArray[np.float64]

RNG = "AES-256 in counter mode, a fresh key from the operating system for each step"
_LOG = logging.getLogger("hansa.node")


@contextmanager
def desk_of(
    home: NodeHome,
    noted: Callable[[Answer], None] = lambda _: None,
    training_of: Callable[[NodeHome, Agreement], LocalTraining] | None = None,
) -> Iterator[Desk]:
    """The desk of a member, with everything behind it open; nobody else has its ledger and state meanwhile.

    Args:
        home: of the member.
        noted: told each answer, for whoever counts.
        training_of: what trains in the place of the member's own data, in a bench; nothing is evaluated then.

    Raises:
        HansaError: a file of the home is missing, or does not fit the others; nothing has changed.
    """
    limit(home.settings.policy)
    accepted = accepted_in(home)
    with ExitStack() as stack:
        rounds = FolderStore(home.state / "sums")
        stack.callback(rounds.close)
        ledger = None
        if any(one.agreement.terms.private for one in accepted):
            ledger = opening(home)(stack.enter_context(store_of(home)))
        nodes = {}
        for one in accepted:
            check_keys(home, one.agreement, one.keys)
            _allow(home.settings.policy, one.agreement)
            nodes[one.agreement.agreement_id] = _node(home, one, ledger, rounds, stack, training_of)
        yield Desk(
            nodes, home.settings.policy, lambda: datetime.now().astimezone(), lambda: is_paused(home), noted
        )


def is_paused(home: NodeHome) -> bool:
    """Whether the member takes no part for now."""
    return pause_file(home).exists()


def pause_file(home: NodeHome) -> Path:
    """Which file says that the member takes no part for now."""
    return home.state / "paused"


def mirror_file(home: NodeHome, agreement_id: str) -> Path:
    """The member's own copy of the federation's log of an agreement."""
    return home.state / f"federation-{agreement_id[:16]}.sqlite"


def limit(policy: Policy) -> None:
    """Hold this process to the member's limits."""
    if policy.memory_gib is not None:
        most = int(policy.memory_gib * 1024**3)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _allow(policy: Policy, agreement: Agreement) -> None:
    problems = policy.problems(agreement)
    if problems:
        raise AgreementError(
            f"this member takes no part in agreement {agreement.agreement_id[:16]}",
            problems,
            remedy="Change [policy] in node.toml, or take the agreement out of the folder `agreements`.",
        )


def _node(
    home: NodeHome,
    accepted: Accepted,
    ledger: MemberLedger | None,
    rounds: FolderStore,
    stack: ExitStack,
    training_of: Callable[[NodeHome, Agreement], LocalTraining] | None,
) -> Node:
    agreement = accepted.agreement
    identity = SumIdentity(
        signer=home.signer(),
        roster=accepted.standing.roster,
        start=accepted.model_zero(),
        store=rounds,
        seal=Seal.load(home.sealing_key),
        max_retries=min(home.settings.max_retries, home.settings.policy.charged_aborts),
        keep_model=True,
    )
    records: Records = NoRecords()
    if agreement.terms.private and ledger is not None:
        records = _records(home, accepted, ledger, stack, quick=training_of is not None)
    if training_of is not None:
        return Node(
            agreement, home.settings.name, training_of(home, agreement), records, _randomness, identity
        )
    training = LazyTraining(home, agreement)
    evaluation = None if agreement.terms.evaluation is None else training
    return Node(agreement, home.settings.name, training, records, _randomness, identity, evaluation)


def _records(
    home: NodeHome, accepted: Accepted, ledger: MemberLedger, stack: ExitStack, *, quick: bool
) -> LedgerRecords:
    agreement_id = accepted.agreement.agreement_id
    if ledger.own.signed_at(agreement_id) is None:
        raise NoBudgetError(
            f"this member has not signed agreement {agreement_id[:16]}",
            remedy="Sign it, then accept it again: hansa agreement sign, hansa node accept.",
        )
    store = stack.enter_context(closing(_opened(mirror_file(home, agreement_id))))
    path = home.state / f"witness-{agreement_id[:16]}.sqlite"
    witness = SqliteWitness(path) if path.exists() else SqliteWitness.create(path)
    stack.callback(witness.close)
    mirror = Mirror(store, accepted.federation, ledger.own, home.witness_signer(), witness)
    held_out = home.settings.evaluation.dataset_id
    return LedgerRecords(
        accepted.agreement,
        ledger,
        mirror,
        RNG,
        lambda: secrets.token_hex(16),
        accepted.federation.key,
        training_units=None if held_out is None else _apart(ledger, held_out),
        evaluation_units=held_out,
        quick=quick,
    )


def _apart(ledger: MemberLedger, held_out: str) -> str:
    """The dataset that is trained on, which shares no unit with the one that is held out, by the officer's own word.

    Raises:
        NoBudgetError: there is no budget for one of them, or nobody called them disjoint.
    """
    grants = ledger.grants
    training = next((one for one in reversed(list(grants)) if one != held_out), None)
    if held_out not in grants or training is None:
        raise NoBudgetError(
            f"node.toml holds units out as dataset {held_out[:12]}, and there is no budget for it, or none to train",
            remedy="Have the privacy officer grant both: hansa node grant, and again with --disjoint-from.",
        )
    if training not in grants[held_out].disjoint_from and held_out not in grants[training].disjoint_from:
        raise NoBudgetError(
            f"the budgets of datasets {training[:12]} and {held_out[:12]} are not granted as disjoint",
            remedy="Leave evaluation.dataset_id out: evaluations are then charged with training.",
        )
    return training


def _opened(path: Path) -> SqliteLogStore:
    return SqliteLogStore(path) if path.exists() else SqliteLogStore.create(path)


def _randomness(_run: str, _number: int) -> Randomness:
    return SecretRandomness()


class LazyTraining:
    """The member's trainer and its evaluation, made beside the first requests: a node that was restarted is at its place at once.

    Args:
        home: of the node, which says where the data are.
        agreement: frozen.
    """

    def __init__(self, home: NodeHome, agreement: Agreement) -> None:
        self._home, self._agreement = home, agreement
        self._trainer: LocalTraining | None = None
        self._judged: Dataset | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._ahead, daemon=True).start()

    def train(
        self,
        weights: Vector,
        randomness: Randomness,
        rotation: Rotation | None = None,
        adapted: Vector | None = None,
    ) -> Vector | npt.NDArray[np.int64]:
        """See `hansa_client.node.LocalTraining`."""
        return self._made().train(weights, randomness, rotation, adapted)

    def evaluate(self, files: Files, order: tuple[str, ...], randomness: Randomness) -> npt.NDArray[np.int64]:
        """See `hansa_client.evaluation.judging.LocalEvaluation`."""
        from hansa_client.evaluation.judging import FileEvaluation

        self._made()
        allowed = self._home.settings.evaluation.unprotected_files
        found = FileEvaluation(self._agreement, self._judged, allow_unprotected=allowed)
        return found.evaluate(files, order, randomness)

    def _ahead(self) -> None:
        try:
            self._made()
        except Exception:  # noqa: BLE001  # told here, and again where training is asked for
            _LOG.exception("the member cannot train: see `hansa node check`")

    def _made(self) -> LocalTraining:
        with self._lock:
            if self._trainer is None:
                self._trainer, self._judged = _trainer_and_judged(self._home, self._agreement)
            return self._trainer


def trainer_of(home: NodeHome, agreement: Agreement) -> LocalTraining:
    """The trainer on a member's data, without the units that are held out for evaluations.

    Raises:
        HansaError: the data, the model or the device cannot be used.
    """
    return _trainer_and_judged(home, agreement)[0]


def _trainer_and_judged(home: NodeHome, agreement: Agreement) -> tuple[LocalTraining, Dataset | None]:
    """The trainer, and the records on which files are judged, if there are any."""
    import torch

    from hansa.errors import DataSourceError, ModelError
    from hansa.models import build_model
    from hansa_client.data import encode, read_records
    from hansa_client.evaluation.units import parted
    from hansa_client.training import TrainerFactory, engine_for

    settings = home.settings
    if settings.data is None:
        raise DataSourceError(
            "node.toml names no data", remedy='Say where they are: data = "/srv/hansa/data".'
        )
    if settings.policy.threads is not None:
        torch.set_num_threads(settings.policy.threads)
    if settings.policy.gpu_memory_share is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(settings.policy.gpu_memory_share)
    fast = replace(agreement, performance=settings.performance)
    built = build_model(fast.terms, folder=fast.folder, device=settings.performance.device)
    agreed = fast.require_frozen().model
    if (built.frozen_sha256, built.tokenizer_sha256) != (agreed.frozen_sha256, agreed.tokenizer_sha256):
        raise ModelError(
            "the model built here is not the one that the agreement was frozen with",
            remedy="Use the same model files and releases as whoever froze it.",
        )
    records = read_records(home.folder / settings.data, fast.terms, settings.source, settings.columns)
    own_file, own = None, settings.evaluation.data
    if own is not None and fast.terms.evaluation is not None and fast.terms.evaluation.units == "own-file":
        found = read_records(home.folder / own, fast.terms, settings.source, settings.columns)
        own_file = encode(found, fast.terms, built.tokenize)
    parts = parted(fast.terms, encode(records, fast.terms, built.tokenize), own_file)
    trainer = TrainerFactory(engine_for(built, fast.performance), fast).trainer(settings.name, parts.training)
    return trainer, parts.evaluation

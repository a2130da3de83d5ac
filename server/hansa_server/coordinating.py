"""One run of a real league, from the coordinator's home: called again after a kill, it goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.artifact.refusal import REFUSAL_HTML, REFUSAL_JSON
from hansa.errors import CoordinatorError, Problem
from hansa.gate.overriding import SUFFIX as OVERRIDE
from hansa.identity.files import replace_file
from hansa.identity.link_key import SUFFIX, read_link
from hansa.ledger import Log, SignedNote, SqliteLogStore, VerifierKey, export_tiles
from hansa.ledger.files import read_entry
from hansa.protocol import sum_terms
from hansa.secagg import MaskWorkers, NoSpool
from hansa.secagg.record import RoundRecord
from hansa.server_step import published_weights
from hansa.vectors import InFiles, Vector, Vectors, pieces_of, read_npy
from hansa.wire import array_sha256, pieces
from hansa_server.evaluating import Evaluations
from hansa_server.federation import Outcome, check_model_zero, run_federation
from hansa_server.history import History
from hansa_server.home import CoordinatorHome
from hansa_server.later_evaluation import PACKAGE, REFERENCE, evaluate_again, evaluates
from hansa_server.members import Members
from hansa_server.publication.approvals import Approvals
from hansa_server.runs import ENDED, Runs, State
from hansa_server.sqlite_journal import SqliteJournal
from hansa_server.summation import SecureSummation, SumHouse
from hansa_server.tracking import track

RECORDS = "rounds.jsonl"  # signed records of sums
OVERRIDES = "overrides"  # folder of signed overrides, in that of the run
_LOCK_S = 30.0  # a Flower run that was killed may take some seconds to go
_LOG = logging.getLogger("hansa.coordinator")


def coordinate(home: CoordinatorHome, runs: Runs, run: str, members_of: Callable[[int], Members]) -> None:
    """Carry a run as far as it goes, and leave its result in its folder.

    Args:
        home: of the league.
        runs: the register.
        run: a name in it.
        members_of: the league, given how many members nothing can be summed without.

    Raises:
        HansaError: it cannot go on; with the journal it goes on from here once what is wrong was corrected.
    """
    folder = runs.folder(run)
    with ExitStack() as stack:
        stack.enter_context(runs.held(run, _LOCK_S))
        if runs.one(run).state in ENDED:
            return
        home.check()
        agreement = home.agreement
        model = read_model_zero(home)
        store = stack.enter_context(closing(log_store(home)))
        log = Log(store, home.log_signer())
        records = RoundRecords(folder / RECORDS)
        vectors = InFiles(folder)
        journal = SqliteJournal(folder)
        stack.callback(journal.close)
        house = SumHouse(
            home.signer(),
            home.roster,
            NoSpool(),  # the journal keeps every masked vector as it came
            history=history_of(home, log) if agreement.terms.private else None,
            records=records.add,
            workers=MaskWorkers(),
            vectors=vectors,
        )
        members = members_of(sum_terms(agreement, home.roster).floor)
        runs.tell(run, "running", round_number=0, phase="")

        def after_round(outcome: Outcome) -> None:
            runs.tell(run, "running", round_number=outcome.state.round)
            outcome.rounds[-1] = outcome.rounds[-1].brief()

        summation = SecureSummation(agreement, members, journal, run, house)
        published_by = evaluates(folder)
        if published_by is not None:
            made_by = runs.folder(published_by)
            why_not = evaluate_again(agreement, made_by, log, members, journal, run, summation)
            export_tiles(log, _note_of(log, house.history), folder / "federation")
            runs.tell(run, "partial" if why_not else "done", note=why_not, round_number=0)
            return
        conclude = None
        if agreement.terms.published and house.history is not None:
            approvals = Approvals(agreement, run, members, journal, house.history)
            evaluations = Evaluations(agreement, run, summation)
            conclude = partial(_publish, home, folder, evaluations, approvals)
        outcome = run_federation(
            agreement,
            model,
            members,
            journal,
            run=run,
            summation=summation,
            after_round=after_round,
            conclude=conclude,
            vectors=vectors,
        )
        _leave(folder, outcome, vectors)
        if agreement.terms.private:
            export_tiles(log, _note_of(log, house.history), folder / "federation")
        track(folder, agreement, run, outcome)
        why = outcome.stopped_because
        state: State = "done" if why is None else "stopped" if outcome.stopped_by == "person" else "partial"
        runs.tell(run, state, note=why or outcome.not_concluded or "", round_number=outcome.state.round)


def _note_of(log: Log, history: History | None) -> SignedNote:
    """The newest checkpoint that enough members have cosigned, or else the newest there is."""
    if history is not None and history.cosigned:
        return SignedNote.parse(history.cosigned)
    return log.last_checkpoint() or log.checkpoint()


def _publish(
    home: CoordinatorHome, folder: Path, evaluations: Evaluations, approvals: Approvals, outcome: Outcome
) -> None:
    """Publish the final model into the run's folder, or leave there what stood in the way."""
    from hansa.models import build_model  # torch
    from hansa_server.publication.compress import PublicCorpus
    from hansa_server.publication.concluding import Conclusion, conclude_run
    from hansa_server.publication.publishing import Publisher

    publisher = Publisher(home.signer(), home.keys, folder / PACKAGE)
    if publisher.folder.exists():
        return  # a run that is called again after it has published
    concluded = Conclusion()
    texts = home.settings.public_texts
    conclude_run(
        outcome.state,
        build_model(home.agreement.terms, folder=home.agreement.folder),
        evaluations,
        approvals,
        concluded,
        publisher=publisher,
        refusals=folder,
        overrides=[read_entry(path) for path in override_files(folder)],
        corpus=None if texts.file is None else PublicCorpus.read(home.path(texts.file), texts.source),
    )
    if concluded.made is not None and concluded.made.reference is not None:
        replace_file(folder / REFERENCE, concluded.made.reference)  # for evaluations after this one
    for name in (REFUSAL_JSON, REFUSAL_HTML):  # of a gate that was closed before
        (folder / name).unlink(missing_ok=True)


def override_files(folder: Path) -> list[Path]:
    """The signed overrides that lie with a run, in order of their names."""
    return sorted((folder / OVERRIDES).glob(f"*{OVERRIDE}"))


def refused(folder: Path) -> bool:
    """Whether a run came to a closed gate, and has published nothing."""
    return (folder / REFUSAL_JSON).is_file() and not (folder / PACKAGE).exists()


def history_of(home: CoordinatorHome, log: Log) -> History:
    """The league's part of the federation's log."""
    keys = home.keys
    return History(
        log,
        home.signer(),
        home.agreement.agreement_id,
        keys.keyring,
        {name: VerifierKey.parse(text) for name, text in keys.witnesses.items()},
        keys.quorum,
        lambda: datetime.now(UTC),
        home.amendments,
    )


def links_of(home: CoordinatorHome) -> Mapping[str, ec.EllipticCurvePublicKey]:
    """The Flower keys of the league's nodes, by party, as their owners have vouched for them.

    Raises:
        CoordinatorError: two files are of one party, or two parties have one key.
        HansaError: a file is no such statement, or its owner has no part in the league.
    """
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    for path in sorted(home.league.glob(f"*{SUFFIX}")):
        name, key = read_link(path, home.roster)
        if name in found or key in found.values():
            raise CoordinatorError(
                "the keys of the league's nodes are not clear",
                [Problem(str(path), f"{name!r} or its key stands in another file too", "keep the newer one")],
            )
        found[name] = key
    return found


def read_model_zero(home: CoordinatorHome) -> Vector:
    """Model 0, whose hash the agreement holds.

    Raises:
        CoordinatorError: it is not there, or is another.
    """
    try:
        model: Vector = read_npy(home.model_zero)
        check_model_zero(home.agreement, model)
    except (OSError, ValueError) as error:
        raise CoordinatorError("there is no model 0", [Problem(str(home.model_zero), str(error))]) from None
    return model


class RoundRecords:
    """The signed records of finished rounds, a line each, as auditors get them.

    Args:
        path: of the file; what a kill left of a last line is taken away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            replace_file(path, whole)
        self._known = {hashlib.sha256(line).digest() for line in whole.splitlines()}

    def add(self, record: RoundRecord) -> None:
        """Keep a record; one that is kept already is not kept twice."""
        line = record.model_dump_json().encode()
        digest = hashlib.sha256(line).digest()  # a line is some kilobytes a member
        if digest not in self._known:
            with self._path.open("ab") as file:
                file.write(line + b"\n")
                file.flush()
            self._known.add(digest)


def _leave(folder: Path, outcome: Outcome, vectors: Vectors) -> None:
    """The result: the optimiser's last state, and the weights that are published."""
    weights = published_weights(outcome.state, vectors)
    replace_file(folder / "state.message", pieces(outcome.state.message))
    replace_file(folder / "model.npy", _npy(weights))
    _LOG.info(
        "model %(model)s after round %(rounds)d",
        {"model": array_sha256(weights), "rounds": outcome.state.round},
    )


def _npy(array: Vector) -> Iterator[bytes | memoryview]:
    """A file of numpy, in pieces."""
    stream = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(stream, header)
    yield stream.getvalue()
    yield from pieces_of(array)


def log_store(home: CoordinatorHome) -> SqliteLogStore:
    """The file of the federation's log, which nobody else writes meanwhile."""
    return SqliteLogStore(home.log) if home.log.exists() else SqliteLogStore.create(home.log)

"""Publication as the end of a run: compress, have the file judged, gate, then a package or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from hansa.artifact import VerifiedPackage
from hansa.artifact.judged import fairness_table
from hansa.artifact.refusal import Obstacle, Refusal, obstacles_of, refusal_text, write_refusal
from hansa.canonical import sha256_hex
from hansa.errors import Problem
from hansa.gate.errors import NotPublishedError
from hansa.ledger import SignedEntry
from hansa.models import BuiltModel
from hansa.server_step import ServerState, published_weights
from hansa_server.evaluating import Evaluations
from hansa_server.publication.approvals import Approvals
from hansa_server.publication.compress import PublicCorpus
from hansa_server.publication.gate import Excuse, Judged, judge_evaluation
from hansa_server.publication.judged import ToJudge, files_to_judge
from hansa_server.publication.publishing import Publisher

Stage = Callable[[str], AbstractContextManager[None]]


def _untold(_: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Conclusion:
    """Where a publication stands.

    Attributes:
        made: the file that would ship.
        judged: the gate, once it stands in the log.
        package: once there is one.
        obstacles: what stood in the way.
    """

    made: ToJudge | None = None
    judged: Judged | None = None
    package: VerifiedPackage | None = None
    obstacles: Sequence[Obstacle] = field(default_factory=tuple)


def conclude_run(
    state: ServerState,
    built: BuiltModel,
    evaluations: Evaluations,
    approvals: Approvals,
    conclusion: Conclusion,
    *,
    publisher: Publisher | None = None,
    refusals: Path | None = None,
    excuses: Sequence[Excuse] = (),
    overrides: Sequence[SignedEntry] = (),
    corpus: PublicCorpus | None = None,
    stage: Stage = _untold,
) -> None:
    """Take the final model of a run through compression, private evaluation and the gate, and publish it.

    Args:
        state: after the last round.
        built: model 0.
        evaluations: of this run.
        approvals: of its members.
        conclusion: told how far it came, also where it ends early.
        publisher: writes the package; without one it ends with the gate.
        refusals: folder in which a refusal is written in place of a package.
        excuses, overrides: of named persons, about conditions that turn out inconclusive; see `judge_evaluation`.
        corpus: public texts, for steps that read texts.
        stage: told what is done.

    Raises:
        NotPublishedError: the gate is closed; a quorum of members agrees, and the log says so.
        HansaError: something on the way failed; nothing was published.
    """
    agreement = approvals.agreement
    with stage("compressing"):
        made = conclusion.made = files_to_judge(agreement.terms, built, published_weights(state), corpus)
    with stage("evaluating by group"):
        evaluated = evaluations.evaluate(state, made.judged, made.reference)
    with stage("deciding at the gate"):
        judged = conclusion.judged = judge_evaluation(
            approvals, evaluated, evaluations.manifest, excuses, overrides
        )
    if not judged.decision.open:
        conclusion.obstacles = obstacles_of(judged.decision)
        if refusals is not None:
            write_refusal(refusals, agreement, refusal_of(approvals, judged, made))
        problems = [Problem(one.condition, f"{one.verdict}: {one.sentence}") for one in conclusion.obstacles]
        raise NotPublishedError(f"nothing is published: {refusal_text(conclusion.obstacles)}", problems)
    if publisher is not None:
        with stage("publishing"):
            conclusion.package = publisher.publish(approvals, judged, made)


def refusal_of(approvals: Approvals, judged: Judged, made: ToJudge) -> Refusal:
    """What is written in place of a package."""
    artifact = sha256_hex(made.judged)
    terms = approvals.agreement.terms
    return Refusal(
        agreement_id=approvals.agreement.agreement_id,
        run=approvals.run,
        gate_sha256=judged.gate.entry.sha256,
        approved_by=list(judged.approved_by),
        obstacles=obstacles_of(judged.decision),
        fairness=fairness_table(terms, judged.evaluated.tables, judged.decision, artifact),
    )

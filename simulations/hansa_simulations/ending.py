"""What follows training in a simulated run: private evaluation, and a publication where the agreement asks for one."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from hansa.artifact.refusal import REFUSAL_HTML, REFUSAL_JSON
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.fairness.evaluated import Evaluated
from hansa.gate.overriding import Person
from hansa.gate.published import published_file
from hansa.identity import COORDINATOR
from hansa.ledger import read_entry
from hansa.models import BuiltModel
from hansa.server_step import published_weights
from hansa_server.evaluating import Evaluations, evaluate_published
from hansa_server.federation import Outcome
from hansa_server.journal import InMemoryJournal, Journal
from hansa_server.members import Members
from hansa_server.publication.approvals import Approvals
from hansa_server.publication.concluding import Conclusion, conclude_run
from hansa_server.publication.gate import Excuse
from hansa_server.publication.judged import files_to_judge
from hansa_server.publication.publishing import Publisher
from hansa_server.summation import SecureSummation, SumHouse
from hansa_simulations.seat import Seat
from hansa_simulations.settings import Clock, Settings

PACKAGE = "publication"  # folder of the package, in that of the run


@dataclass
class Ending:
    """How a run ends after its last round.

    Attributes:
        built: model 0.
        settings: of the run.
        clock: measures the parts.
        conclusion: how far a publication came; `None` where the agreement asks for none.
        evaluated: private evaluations of the final model.
        later: one of the published file on other records, where the settings ask for it.
        not_later: why there is none, although they do.
    """

    built: BuiltModel
    settings: Settings
    clock: Clock
    conclusion: Conclusion | None = None
    evaluated: tuple[Evaluated, ...] = field(default_factory=tuple)
    later: Evaluated | None = None
    not_later: str | None = None

    @property
    def told(self) -> tuple[Evaluated, ...]:
        """All evaluations, in their order."""
        return self.evaluated if self.later is None else (*self.evaluated, self.later)

    def of(
        self, seat: Seat, house: SumHouse, evaluations: Evaluations, members: Members, journal: Journal
    ) -> Callable[[Outcome], None]:
        """What is called once training is finished; see `run_federation`."""

        def evaluate(outcome: Outcome) -> None:
            with self.clock.part("evaluating by group"):
                made = files_to_judge(
                    seat.agreement.terms, self.built, published_weights(outcome.state), self.settings.corpus
                )
                self.evaluated = (evaluations.evaluate(outcome.state, made.judged, made.reference),)

        def publish(outcome: Outcome) -> None:
            self.conclusion = Conclusion()
            coordinator = seat.identities.signer(COORDINATOR)
            if house.history is None:
                raise AssertionError("a private run has a log")
            try:
                conclude_run(
                    outcome.state,
                    self.built,
                    evaluations,
                    Approvals(seat.agreement, seat.run, members, journal, house.history),
                    self.conclusion,
                    publisher=self._publisher(seat),
                    refusals=self.settings.published,
                    excuses=[
                        Excuse(o.condition, Person(o.name, o.role, o.reason), coordinator)
                        for o in self.settings.overrides
                    ],
                    corpus=self.settings.corpus,
                    stage=self.clock.part,
                )
            finally:
                if self.conclusion.judged is not None:
                    self.evaluated = (self.conclusion.judged.evaluated,)

        return publish if seat.agreement.terms.published else evaluate

    def evaluate_later(self, seat: Seat, house: SumHouse, members: Members) -> None:
        """Have the published file evaluated once more, in a run of its own; what keeps it from that is told."""
        done, history = self.conclusion, house.history
        if done is None or done.made is None or done.package is None or history is None:
            self.not_later = "nothing was published"
            return
        files = {
            sha256_hex(data): data for data in (done.made.judged, done.made.reference) if data is not None
        }
        agreement, artifact = seat.agreement, sha256_hex(done.made.judged)
        entries = (read_entry(data).entry for data in history.log.entries())
        published = published_file(entries, agreement.agreement_id, artifact)
        if published is None:
            raise AssertionError("the log shows what it was told")
        run = f"{seat.run[:16]}-{secrets.token_hex(8)}"
        journal = InMemoryJournal(keep=1)
        with self.clock.part("evaluating on later records"):
            summation = SecureSummation(agreement, members, journal, run, house)
            try:
                self.later = evaluate_published(agreement, members, journal, run, summation, published, files)
            except HansaError as error:  # a machine's too: nobody calls a simulation again
                self.not_later = error.cause

    def _publisher(self, seat: Seat) -> Publisher | None:
        """The coordinator's; a publication of an earlier simulation in the same folder was given up with the rest of it."""
        folder = self.settings.published
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / PACKAGE, ignore_errors=True)
        for name in (REFUSAL_JSON, REFUSAL_HTML):
            (folder / name).unlink(missing_ok=True)
        return Publisher(seat.identities.signer(COORDINATOR), seat.keys(), folder / PACKAGE)

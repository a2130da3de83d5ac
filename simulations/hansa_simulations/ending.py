"""What follows training in a simulated run: private evaluation, and a publication where the agreement asks for one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from hansa.artifact.refusal import REFUSAL_HTML, REFUSAL_JSON
from hansa.fairness.evaluated import Evaluated
from hansa.gate.overriding import Person
from hansa.identity import COORDINATOR
from hansa.models import BuiltModel
from hansa.server_step import published_weights
from hansa_server.evaluating import Evaluations
from hansa_server.federation import Outcome
from hansa_server.journal import Journal
from hansa_server.members import Members
from hansa_server.publication.approvals import Approvals
from hansa_server.publication.concluding import Conclusion, conclude_run
from hansa_server.publication.gate import Excuse
from hansa_server.publication.judged import files_to_judge
from hansa_server.publication.publishing import Publisher
from hansa_server.summation import SumHouse
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
    """

    built: BuiltModel
    settings: Settings
    clock: Clock
    conclusion: Conclusion | None = None
    evaluated: tuple[Evaluated, ...] = field(default_factory=tuple)

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

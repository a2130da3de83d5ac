"""What a step is, what it costs, and the order in which steps are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hansa.artifact.contents import StepTold
from hansa.artifact.errors import StepError, UnchargedStepError
from hansa.privacy.events import Spend
from hansa_server.publication.compress.candidate import Candidate

Charge = Callable[[str, tuple[Spend, ...]], None]


@dataclass(frozen=True)
class Cost:
    """What a step costs the people in the data.

    Attributes:
        words: the cost as documents tell it.
        private: whether the step reads private data: activations, gradients, or records.
        spends: the DP events that it releases, if it is private.
    """

    words: str
    private: bool = False
    spends: tuple[Spend, ...] = ()


POST_PROCESSING = Cost("none, post-processing: a function of the private model alone")


def public_data(source: str) -> Cost:
    """The cost of a step that reads public data beside the model: none."""
    return Cost(f"none, post-processing: the model and public data alone ({source})")


class Step(Protocol):
    """One step of compression."""

    @property
    def name(self) -> str:
        """As the agreement and the log call it."""

    @property
    def cost(self) -> Cost:
        """What it costs; known before it runs."""

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        """The candidate after the step, and what was done in one sentence."""


def compress(candidate: Candidate, steps: Sequence[Step], charge: Charge | None = None) -> Candidate:
    """Run steps in order.

    Args:
        candidate: the final model.
        steps: to take.
        charge: pays for a private step before it runs, at every member, or raises.

    Guarantees: a step whose `cost` is private does not run before `charge` has accepted its events.
    Assumes: steps tell the truth about what they read; those of this package read the model and public data only.

    Raises:
        UnchargedStepError: a private step, and nobody charges it, or it names no events.
        BudgetRefusedError: from `charge`.
        StepError: a step does not fit the model.
    """
    for step in steps:
        cost = step.cost
        if cost.private:
            if charge is None or not cost.spends:
                raise UnchargedStepError(
                    f"the step {step.name!r} reads private data, and no budget is charged for it"
                )
            charge(step.name, cost.spends)
        if candidate.onnx is not None and step.name != "int8":
            raise StepError(f"the step {step.name!r} comes after the model was exported")
        candidate, did = step.run(candidate)
        told = StepTold(name=step.name, did=did, privacy=cost.words)
        candidate = replace(candidate, told=(*candidate.told, told))
    return candidate

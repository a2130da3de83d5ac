"""Every error that Hansa shows a person: a code, a cause in one line, a remedy, an exit status.

A code never changes its meaning; `docs/errors.md` has a row for each. What a member refuses travels as a
code alone: the text of an error stays on the machine where it arose.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """What a `hansa` command returns to the shell."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    VERIFICATION_FAILED = 4
    CONNECTION = 5
    NOT_PUBLISHED = 6


class Problem:
    """One thing that is wrong with an input: where, what, and what to do about it."""

    __slots__ = ("place", "remedy", "what")

    def __init__(self, place: str, what: str, remedy: str = "") -> None:
        self.place = place
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        line = f"{self.place}: {self.what}" if self.place else self.what
        return f"{line} ({self.remedy})" if self.remedy else line

    def __repr__(self) -> str:
        return f"Problem({self.place!r}, {self.what!r}, {self.remedy!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def as_dict(self) -> dict[str, str]:
        """The problem as plain JSON values."""
        return {"place": self.place, "what": self.what, "remedy": self.remedy}


class HansaError(Exception):
    """The root of the tree. Subclasses set `code`, `exit_status` and, where one fits all, `remedy`.

    Attributes:
        travels: whether a member may tell the coordinator its code: only where the error follows from messages
            and public terms, and never from data. Everything else looks like absence from outside.
    """

    code: ClassVar[str] = "HANSA-000"
    travels: ClassVar[bool] = False
    exit_status: ClassVar[ExitStatus] = ExitStatus.FAILED
    remedy: ClassVar[str] = ""

    def __init__(self, cause: str, *, remedy: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.what_to_do = self.remedy if remedy is None else remedy

    def diagnostics(self) -> str:
        """The error as a person reads it: code, cause, remedy."""
        text = f"{self.code}: {self.cause}"
        return f"{text}\n  {self.what_to_do}" if self.what_to_do else text

    def as_dict(self) -> dict[str, object]:
        """The error as the `error` member of the JSON envelope."""
        return {"code": self.code, "cause": self.cause, "remedy": self.what_to_do}


class ProblemsError(HansaError):
    """Bad input, all of it told at once."""

    exit_status = ExitStatus.BAD_INPUT

    def __init__(self, cause: str, problems: Sequence[Problem], *, remedy: str | None = None) -> None:
        super().__init__(cause, remedy=remedy)
        self.problems = tuple(problems)

    def diagnostics(self) -> str:
        lines = [f"{self.code}: {self.cause}", *(f"  - {problem}" for problem in self.problems)]
        if self.what_to_do:
            lines.append(f"  {self.what_to_do}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "problems": [problem.as_dict() for problem in self.problems]}


class MachineError(HansaError):
    """A disk, a process or a carrier failed, and nobody's word did: it passes, or somebody makes room or mends it.

    A run that meets one is interrupted where it stands, and goes on from there once it is called again. No other error is one:
    those follow from what was agreed or said, and come again.
    """


# Agreements and configuration: HANSA-1xx


class AgreementError(ProblemsError):
    """The agreement cannot be read, or says something that cannot be kept."""

    code = "HANSA-101"
    remedy = "Correct the agreement, then try `hansa agreement check FILE` again."


class OutputExistsError(HansaError):
    """The output folder already holds a run."""

    code = "HANSA-102"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Choose another --out, or pass --force to replace what is there."


class MissingExtraError(HansaError):
    """A command needs packages that the base install does not have."""

    code = "HANSA-103"
    exit_status = ExitStatus.BAD_INPUT


class UsageError(HansaError):
    """The command line asks for something that does not fit together."""

    code = "HANSA-104"
    exit_status = ExitStatus.BAD_INPUT


class NotInForceError(HansaError):
    """A run asks for a part of the agreement that this release reads and does not act on."""

    code = "HANSA-105"
    exit_status = ExitStatus.REFUSED


# Data: HANSA-2xx


class DataError(ProblemsError):
    """A member's data do not fit the agreement. Raised only inside the member's walls."""

    code = "HANSA-201"
    remedy = (
        "Correct the data or the column mapping, then try `hansa node check DATA --agreement FILE` again."
    )


class DataSourceError(HansaError):
    """A file or folder of data is missing or cannot be read."""

    code = "HANSA-202"
    exit_status = ExitStatus.BAD_INPUT


# Models and training: HANSA-3xx


class ModelError(HansaError):
    """The model named in the agreement does not exist, has no classifier, or does not fit the task."""

    code = "HANSA-301"
    exit_status = ExitStatus.BAD_INPUT


class TrainingError(HansaError):
    """Training did something that the accounting does not describe; the run stops."""

    code = "HANSA-302"


class UnsupportedRuleError(HansaError):
    """An aggregation rule was asked for that a sum of masked updates cannot serve."""

    code = "HANSA-303"
    exit_status = ExitStatus.BAD_INPUT


class ServerStateError(HansaError):
    """The server optimiser was given numbers that its step is not defined on; no state was changed."""

    code = "HANSA-304"


# Privacy: HANSA-4xx


class BudgetRefusedError(HansaError):
    """A release would exceed a member's privacy budget; nothing was spent."""

    code = "HANSA-401"
    travels = True
    exit_status = ExitStatus.REFUSED


class PrivacyParameterError(HansaError):
    """A privacy parameter for which no guarantee can be stated."""

    code = "HANSA-402"
    exit_status = ExitStatus.BAD_INPUT


# The federation and its messages: HANSA-5xx


class WireError(HansaError):
    """A message is malformed, too large, or of another protocol version. No state was changed."""

    code = "HANSA-501"
    travels = True


class TooFewMembersError(HansaError):
    """Fewer members answered than the agreement requires; the run ends with what it has."""

    code = "HANSA-502"
    exit_status = ExitStatus.REFUSED


class EngineError(MachineError):
    """The engine under the federation failed."""

    code = "HANSA-503"


class InterruptedRunError(HansaError):
    """A person stopped the run; what was done so far is kept."""

    code = "HANSA-504"


class ModelMismatchError(HansaError):
    """The model that the coordinator names is not the one that follows from model 0 and the sums so far."""

    code = "HANSA-505"
    travels = True
    exit_status = ExitStatus.VERIFICATION_FAILED


class LinkError(HansaError):
    """A SuperLink cannot be reached, or cannot be used by this node."""

    code = "HANSA-506"
    exit_status = ExitStatus.CONNECTION
    remedy = "Check the address, the certificates and the clock; `hansa node doctor` looks at each of them."


class PortError(HansaError):
    """A port that a service should listen at is in use, or may not be used."""

    code = "HANSA-507"
    exit_status = ExitStatus.CONNECTION
    remedy = "Stop what listens there, or name another port."


class CoordinatorError(ProblemsError):
    """What a coordinator has in its home does not make a league, or a run does not go with it."""

    code = "HANSA-508"


class RunStateError(HansaError):
    """A run is not in a state in which this can be done to it."""

    code = "HANSA-509"
    exit_status = ExitStatus.REFUSED


# Reports: HANSA-6xx


class ReportError(ProblemsError):
    """A report cannot be read or written, or is not one."""

    code = "HANSA-601"
    remedy = "`hansa simulate` writes report.json; docs/report-schema.md describes it."


# Merkle trees: HANSA-741 (what stands on them has codes in its room)


class ProofError(HansaError):
    """A Merkle proof does not prove what it was given for."""

    code = "HANSA-741"
    exit_status = ExitStatus.VERIFICATION_FAILED

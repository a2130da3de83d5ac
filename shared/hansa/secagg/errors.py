"""Errors of the secure sum. HANSA-71x and 72x.

None of them holds a secret, a value of a vector, or anything that depends on data: a refusal travels as its
code alone, and the text stays where it arose.
"""

from __future__ import annotations

from collections.abc import Sequence

from hansa.errors import ExitStatus, HansaError, MachineError, ProblemsError


class SumTermsError(ProblemsError):
    """The agreement asks for a sum that cannot be kept secret, or cannot be kept exact."""

    code = "HANSA-711"


class VectorError(HansaError):
    """A vector has the wrong length or type, or holds NaN or infinities; nothing was masked."""

    code = "HANSA-712"
    exit_status = ExitStatus.BAD_INPUT


class SumOutOfRangeError(HansaError):
    """A sum holds values that no honest members could add up to."""

    code = "HANSA-713"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Somebody's vector was altered or masked under another transcript; discard this sum."


class MaskKeyUsedError(HansaError):
    """A mask key was about to mask a second vector; two vectors under one mask give their difference away."""

    code = "HANSA-714"
    exit_status = ExitStatus.REFUSED


class PhaseError(HansaError):
    """A message of a phase that is not due: too early, too late, or of a round that nobody knows."""

    code = "HANSA-715"
    travels = True
    exit_status = ExitStatus.REFUSED


class AlreadyAnsweredError(HansaError):
    """A phase was answered already, and this is not the same request."""

    code = "HANSA-716"
    travels = True
    exit_status = ExitStatus.REFUSED


class RoundRefusedError(HansaError):
    """A round that is replayed, does not follow from the last one, or is one retry too many."""

    code = "HANSA-717"
    travels = True
    exit_status = ExitStatus.REFUSED


class TranscriptError(HansaError):
    """What the coordinator says does not fit what the members have signed."""

    code = "HANSA-718"
    travels = True
    exit_status = ExitStatus.VERIFICATION_FAILED


class QuorumError(HansaError):
    """Fewer members, signatures or shares than the agreement requires.

    Attributes:
        present: how many there were, where members were counted.
        missing: who was not there.
    """

    code = "HANSA-719"
    travels = True
    exit_status = ExitStatus.REFUSED

    def __init__(self, cause: str, *, present: int = 0, missing: Sequence[str] = ()) -> None:
        super().__init__(cause)
        self.present, self.missing = present, tuple(missing)


class MaskForfeitedError(HansaError):
    """The mask of this round was taken and its vector never became durable; it masks nothing else."""

    code = "HANSA-720"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = "The member takes part again from the next round."


class ExcludedError(HansaError):
    """The coordinator leaves out a member that has sent its vector."""

    code = "HANSA-721"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = "Keep the coordinator's receipt; an auditor can compare it with the round's record."


class StateError(MachineError):
    """Sealed state cannot be opened: another key, another name, or altered bytes."""

    code = "HANSA-722"


class BadShareError(HansaError):
    """Secrets of a round cannot be reconstructed because somebody's shares are wrong.

    Attributes:
        blamed: members whose own signatures prove it.
    """

    code = "HANSA-723"
    exit_status = ExitStatus.VERIFICATION_FAILED

    def __init__(self, cause: str, blamed: Sequence[str]) -> None:
        super().__init__(cause)
        self.blamed = tuple(blamed)


class SumVerificationError(HansaError):
    """A published sum, or the record that should prove it, is false."""

    code = "HANSA-724"
    exit_status = ExitStatus.VERIFICATION_FAILED


class MaskWorkersError(MachineError):
    """The processes that expand masks failed."""

    code = "HANSA-725"


class ContributionWithheldError(HansaError):
    """A member's own work on a contribution failed; it takes no part in this round. What failed stays in its log."""

    code = "HANSA-726"

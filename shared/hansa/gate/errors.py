"""Errors of the gate and of approvals. HANSA-84x."""

from __future__ import annotations

from hansa.errors import ExitStatus, HansaError, ProblemsError


class NotPublishedError(ProblemsError):
    """The gate is closed: a condition of the agreement does not hold, so that nothing was published."""

    code = "HANSA-841"
    exit_status = ExitStatus.NOT_PUBLISHED
    remedy = (
        "Read refusal.json: what fails needs another model; what is inconclusive more records, or a person who overrides it "
        "with a name and a reason."
    )


class GateMismatchError(HansaError):
    """A gate or a publication is not what follows from the noisy sums, the log and the agreement."""

    code = "HANSA-842"
    travels = True
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Sign nothing. Compare the agreement, the log and the releases of Hansa on both sides."


class ApprovalError(HansaError):
    """Fewer members than the quorum have approved a gate or a publication, or an approval does not count."""

    code = "HANSA-843"
    exit_status = ExitStatus.REFUSED
    remedy = "See which members did not approve, and why, in their own logs; nothing is published without a quorum."


class OverrideError(HansaError):
    """An override names no condition that could be overridden, or no person and no reason."""

    code = "HANSA-844"
    exit_status = ExitStatus.BAD_INPUT
    remedy = (
        "Name a condition that is inconclusive, as refusal.json spells it, with a name, a role and a reason."
    )

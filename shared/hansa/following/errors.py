"""Errors of following a log. HANSA-77x. What is wrong with a log has the codes of `hansa.ledger.errors`."""

from __future__ import annotations

from hansa.errors import ExitStatus, HansaError


class LedgerServiceError(HansaError):
    """A ledger service cannot be reached, lets nobody in, or does not serve what was asked for."""

    code = "HANSA-771"
    exit_status = ExitStatus.CONNECTION
    remedy = "Check address, certificate and the authority's certificate; the coordinator's own log says who was refused."


class MirrorError(HansaError):
    """A folder cannot be a mirror of the log: it holds another log's, or something else."""

    code = "HANSA-772"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Name a new folder, or the mirror of this very federation."

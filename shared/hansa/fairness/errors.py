"""Errors of private evaluations. docs/errors.md has a row for each code."""

from __future__ import annotations

from typing import ClassVar

from hansa.errors import ExitStatus, HansaError, ProblemsError


class EvaluationError(HansaError):
    """An evaluation, or a condition on it, asks for what its tables do not hold."""

    code: ClassVar[str] = "HANSA-801"
    exit_status = ExitStatus.BAD_INPUT


class UndecidableError(ProblemsError):
    """Conditions that a league of this size could never pass, whatever its model."""

    code: ClassVar[str] = "HANSA-802"
    exit_status = ExitStatus.BAD_INPUT
    remedy: ClassVar[str] = (
        "Ask for less, declare more records or fewer groups and bins, allow more ε for evaluations, or exempt a group; "
        "`hansa agreement plan FILE` shows what can be decided."
    )

"""Errors of private evaluations. docs/errors.md has a row for each code."""

from __future__ import annotations

from typing import ClassVar

from hansa.errors import ExitStatus, HansaError


class EvaluationError(HansaError):
    """An evaluation, or a condition on it, asks for what its tables do not hold."""

    code: ClassVar[str] = "HANSA-801"
    exit_status = ExitStatus.BAD_INPUT

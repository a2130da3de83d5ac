"""Findings as a privacy officer reads them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from hansa.audit.findings import Failure, Findings, Spent


def render_text(findings: Findings) -> str:
    """The findings in plain words, the verdict first."""
    parts = [_verdict(findings), _failures(findings), _spent(findings.spent), _passed(findings)]
    parts += [_not_checked(findings), _remarks(findings), _copies(findings)]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def _verdict(findings: Findings) -> Iterator[str]:
    if findings.verified:
        yield "VERIFIED. Nothing that was checked is wrong; read below what was not checked."
    else:
        count = len(findings.failures)
        yield f"NOT VERIFIED. {count} {'things are' if count > 1 else 'thing is'} wrong."
        yield f"The first: {findings.failures[0].where}: {findings.failures[0].what}"
    yield f"All of this rests on the public keys with the fingerprint {findings.keys}."


def _failures(findings: Findings) -> Iterator[str]:
    if findings.failures:
        yield "What is wrong (of each log the first broken entry; what lies behind it was not looked at)"
    for failure in findings.failures:
        yield f"  - {failure.where}: {failure.what}"
        yield from _details(failure)


def _details(failure: Failure) -> Iterator[str]:
    if failure.beside is not None:
        yield f"    compare with {failure.beside}"
    if failure.copy and failure.copy != failure.log:
        yield f"    in the copy {failure.copy}"


def _spent(spent: tuple[Spent, ...]) -> Iterator[str]:
    if spent:
        yield "Privacy spent, recomputed from what was released or is still reserved"
    runs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in spent:
        runs[one.member, one.dataset].add(one.run)
    for one in spent:
        if one.run and len(runs[one.member, one.dataset] - {""}) == 1:
            continue  # the line about all runs says the same
        what = f"run {one.run}" if one.run else "all runs"
        limit = f" of {one.limit:.4g} allowed" if one.limit is not None else ""
        epsilon = f"{one.epsilon:.4g}" if math.isfinite(one.epsilon) else "without a bound"
        yield (
            f"  {one.member}, dataset {one.dataset[:8]}, {what}: ε = {epsilon}{limit} at δ = {one.delta:g} "
            f"against {one.against}"
        )


def _passed(findings: Findings) -> Iterator[str]:
    if findings.passed:
        yield "What was checked and holds"
    width = max((len(str(count)) for count in findings.passed.values()), default=0)
    for check, count in findings.passed.items():
        if count:
            yield f"  {count:>{width}}  {check}"


def _not_checked(findings: Findings) -> Iterator[str]:
    if findings.not_checked:
        yield "What could not be checked"
    for one in findings.not_checked:
        yield f"  - {one.what}: {one.why}"


def _remarks(findings: Findings) -> Iterator[str]:
    if findings.remarks:
        yield "Worth knowing, and no proof of anything"
    for remark in findings.remarks:
        place = remark.log if remark.entry is None else f"{remark.log}, entry {remark.entry}"
        yield f"  - {place}: {remark.what}"


def _copies(findings: Findings) -> Iterator[str]:
    if not findings.logs:
        return
    yield "Copies that were read"
    for seen in findings.logs:
        by = f", cosigned by {', '.join(seen.cosigned)}" if seen.cosigned else ""
        yield f"  {seen.log}: {seen.entries} entries, {seen.sealed} under its checkpoint{by} ({seen.copy})"

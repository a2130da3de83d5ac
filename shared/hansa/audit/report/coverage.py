"""Group 4: what was released, who took part in which round, and what nothing protects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicles, Summed
from hansa.audit.report.promises import Access, Coverage, RoundTold
from hansa.ledger.trust import TrustedKeys


def coverage(told: Chronicles, keys: TrustedKeys) -> Coverage:
    """What the numbers cover."""
    rounds = tuple(_rounds(told, keys))
    units = {placed.entry.unit for log in told.own.values() for placed in log.grants}
    return Coverage(
        accesses=tuple(_accesses(told, keys, rounds)),
        rounds=rounds,
        left_out=sum(len(one.left_out) for one in rounds),
        elsewhere=_elsewhere(rounds),
        models=sum(summed.model_sha256 is not None for summed in _sums(told)),
        unprotected=words.not_protected(units),
        untold=words.UNTOLD["coverage"],
    )


def _sums(told: Chronicles) -> tuple[Summed, ...]:
    return () if told.federation is None else tuple(told.federation.sums)


def _rounds(told: Chronicles, keys: TrustedKeys) -> Iterator[RoundTold]:
    """Every round that anybody released anything in, or that ended without a sum, run by run."""
    released: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    order: dict[str, None] = {}
    for member in keys.members:
        log = told.of(member)
        for (name, _, run), made in log.made.items() if log is not None else ():
            if name == member:
                order.setdefault(run)
                for one in made:
                    released[run, one.round][member] = one.purpose
    sums = {(one.run, one.round): one for one in _sums(told)}
    aborted = {} if told.federation is None else told.federation.aborted
    ended = {(run, number) for run, numbers in aborted.items() for number in numbers}
    runs = [*order, *(run for run, _ in (*sums, *sorted(ended)) if run not in order)]
    for run in dict.fromkeys(runs):
        numbers = sorted({number for of, number in (*released, *sums, *ended) if of == run})
        for number in numbers:
            there, summed = released.get((run, number), {}), sums.get((run, number))
            inside = () if summed is None else summed.released
            purpose = (
                summed.purpose if summed is not None else next(iter(there.values()), words.UNKNOWN_PURPOSE)
            )
            yield RoundTold(
                run=run,
                round=number,
                purpose=purpose,
                summed=tuple(inside),
                left_out=tuple(name for name in keys.members if name in there and name not in inside),
                failed=summed is None and (run, number) in ended,
            )


def _elsewhere(rounds: tuple[RoundTold, ...]) -> tuple[str, ...]:
    """Runs of which neither a sum nor a round that ended without one is known."""
    known = {one.run for one in rounds if one.summed or one.failed}
    return tuple(dict.fromkeys(one.run for one in rounds if one.run not in known))


def _accesses(told: Chronicles, keys: TrustedKeys, rounds: tuple[RoundTold, ...]) -> Iterator[Access]:
    releases: dict[str, int] = defaultdict(int)
    steps: dict[str, int] = defaultdict(int)
    for member in keys.members:
        log = told.of(member)
        if log is None:
            continue
        for (name, _, _), made in log.made.items():
            for one in made if name == member else ():
                releases[one.purpose] += 1
        for (name, _, _), run in log.spending.runs.items():
            for kind, count in run.counts.items() if name == member else ():
                steps[kind] += count
    for purpose in sorted({*releases, *steps}):
        summed = sum(len(one.summed) for one in rounds if one.purpose == purpose)
        yield Access(purpose=purpose, releases=releases[purpose], summed=summed, steps=steps[purpose])

"""Members' own logs and the federation's against each other, in both directions.

The entry that is named is always one that is there and has no counterpart, so that whoever reads the finding can look
at it; where its counterpart should stand is named beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from hansa.audit.findings import FEDERATION, Failure, Notebook, Place, log_name
from hansa.audit.integrity import Examined
from hansa.audit.reading import Copied, LogFacts
from hansa.ledger.outcomes import Aggregate
from hansa.ledger.trust import TrustedKeys
from hansa.quorum import threshold
from hansa.secagg.terms import MIN_MEMBERS

RELEASE = "release"


def compare_logs(
    federation: Examined | None, own: Mapping[str, Examined], keys: TrustedKeys, notebook: Notebook
) -> None:
    """Compare what each member signed in its own log with what the federation's log shows of it."""
    if federation is None:
        notebook.not_checked(
            "whether the federation's log shows what the members released", "no copy of it was given"
        )
    for name in keys.members:
        log = own.get(name)
        if log is None:
            notebook.not_checked(
                f"whether {name!r} has in its own log what the federation's shows of it",
                "no copy of it was given",
            )
        elif federation is not None:
            _compare(name, log, federation, notebook)
        if not _signed_agreement(name, log, federation):
            notebook.not_checked(
                f"whether {name!r} has signed the agreement", "none of the logs that were given says so"
            )
        else:
            notebook.passed("members that signed the agreement under the trusted keys")


def check_aggregates(federation: Examined, notebook: Notebook) -> None:
    """Check that every sum is of releases that its members signed, in its round and for its manifest."""
    releases = federation.facts.releases
    in_sums: set[tuple[str, int, str]] = set()
    for index, entry in federation.facts.aggregates:
        problem = _aggregate_problem(index, entry, federation)
        if problem:
            notebook.failed(Failure(FEDERATION, index, entry.type, problem, federation.place))
            return
        notebook.passed("sums of releases that their members signed")
        if entry.excluded:
            notebook.remark(
                FEDERATION,
                index,
                f"the coordinator has a receipt for {', '.join(entry.excluded)} and left the vector out of round "
                f"{entry.round} of {entry.run!r}",
            )
        in_sums |= {(entry.run, entry.round, name) for name in entry.released}
    left = sorted(set(releases) - in_sums)
    if left:
        run, number, name = left[0]
        notebook.remark(
            FEDERATION,
            releases[left[0]].entry,
            f"{len(left)} releases are charged and in no sum, the first by {name!r} in round {number} of {run!r}",
        )


def _aggregate_problem(index: int, entry: Aggregate, federation: Examined) -> str:
    roster = _roster_at(federation.facts)
    least = max(threshold(len(roster)), MIN_MEMBERS)
    if len(entry.released) < least:
        return f"it sums {len(entry.released)} releases; no sum is over fewer than {least}"
    for name, y_sha256 in entry.released.items():
        if name not in roster:
            return f"it sums a release of {name!r}, who is no member"
        release = federation.facts.releases.get((entry.run, entry.round, name))
        if release is None or release.entry > index:
            return f"it sums a release of {name!r} that does not stand before it in this log"
        said = (release.purpose, release.step, release.y_sha256, release.manifest_sha256)
        if said != (entry.purpose, entry.step, y_sha256, entry.manifest_sha256):
            return f"it sums another vector of {name!r} than entry {release.entry} says was released"
    return ""


def _roster_at(facts: LogFacts) -> Mapping[str, str]:
    return facts.agreed.rosters[-1][1].members if facts.agreed is not None else {}


def _signed_agreement(name: str, *logs: Examined | None) -> bool:
    return any(log is not None and name in log.facts.agreements for log in logs)


# --- both directions -------------------------------------------------------------------------------------


def _compare(name: str, log: Examined, federation: Examined, notebook: Notebook) -> None:
    mine, theirs = log.facts.copied.get(name, []), federation.facts.copied.get(name, [])
    here = {one.leaf: one for one in mine}
    there = {one.leaf: one for one in theirs}
    notebook.passed(
        "entries that a member's log and the federation's share, byte for byte", len(here.keys() & there)
    )
    _missing_there(name, mine, theirs, there, log, federation, notebook)
    _missing_here(name, mine, theirs, here, log, federation, notebook)
    _attacks_missing_here(name, log, federation, notebook)


def _missing_there(
    name: str,
    mine: list[Copied],
    theirs: list[Copied],
    there: Mapping[bytes, Copied],
    log: Examined,
    federation: Examined,
    notebook: Notebook,
) -> None:
    """What the member has and the federation's log does not show."""
    elsewhere = log.facts.elsewhere
    for key in sorted(set(elsewhere.values())):
        runs = ", ".join(repr(run) for run in sorted(elsewhere) if elsewhere[run] == key)
        notebook.not_checked(
            f"whether a federation's log shows what {name!r} released in {runs}",
            f"it was reserved for the log {key}; ask for that one, and audit it with its own keys",
        )
    mine = [one for one in mine if one.run not in elsewhere]
    lacking = [one for one in mine if one.leaf not in there]
    if not lacking:
        return
    same = {(one.type, one.run, one.round): one for one in theirs}
    first = lacking[0]
    other = same.get((first.type, first.run, first.round))
    if other is not None:
        what = f"it is not what {name!r} signed for the federation's log, which has its own words at entry {other.entry}"
        notebook.failed(
            Failure(log.log, first.entry, first.type, what, log.place, Place(FEDERATION, other.entry))
        )
    elif not federation.complete:
        notebook.not_checked(
            f"whether the federation's log shows entries {first.entry} and following of {log.log}",
            f"its copy is broken from entry {federation.size} on",
        )
    elif _may_be_on_its_way(lacking, mine, federation.facts, name):
        notebook.not_checked(
            f"whether {len(lacking)} entries at the end of {log.log}, from {first.entry} on, reached the coordinator",
            "nothing later shows that they did: a member writes before it sends. Until the federation's log shows "
            f"them, {name!r} takes no part",
        )
    else:
        what = "the federation's log does not show it: the coordinator left it out"
        notebook.failed(Failure(log.log, first.entry, first.type, what, log.place))


def _may_be_on_its_way(lacking: list[Copied], mine: list[Copied], facts: LogFacts, name: str) -> bool:
    """Whether what is lacking is the end of what the member wrote: at most one release, which nobody has summed.

    A member releases again only when the federation's log shows all that it released before.
    """
    if lacking != mine[len(mine) - len(lacking) :]:
        return False
    released = [one for one in lacking if one.type == RELEASE]
    summed = any(
        name in entry.released and (entry.run, entry.round) == (one.run, one.round)
        for one in released
        for _, entry in facts.aggregates
    )
    return len(released) <= 1 and not summed


def _missing_here(
    name: str,
    mine: list[Copied],
    theirs: list[Copied],
    here: Mapping[bytes, Copied],
    log: Examined,
    federation: Examined,
    notebook: Notebook,
) -> None:
    """What the federation's log shows under the member's signature and the member does not have."""
    known = {(one.type, one.run, one.round) for one in mine}
    expected = 0  # where in the member's log the next of its entries should stand
    for one in theirs:
        mate = here.get(one.leaf)
        if mate is not None:
            expected = mate.entry + 1
            continue
        if (one.type, one.run, one.round) in known:
            continue  # told in the other direction, where the member's own words stand
        if not log.complete:
            notebook.not_checked(
                f"whether {log.log} has entry {one.entry} of the federation's log and those after it",
                f"its copy is broken from entry {log.size} on",
            )
            return
        cut = expected >= log.size
        what = (
            f"{name!r} has signed it and its own log ends at entry {log.size} without it: "
            "an older copy, or a log that was restored from a backup"
            if cut
            else f"{name!r} has signed it and its own log does not have it"
        )
        place = Place(log_name(name), expected)
        notebook.failed(Failure(FEDERATION, one.entry, one.type, what, federation.place, place))
        return


def _attacks_missing_here(name: str, log: Examined, federation: Examined, notebook: Notebook) -> None:
    """Attacks that the federation's log tells for the gate and the member's own log does not have."""
    own = {leaf for _, leaf in log.facts.told_attacks.get(name, [])}
    lacking = [index for index, leaf in federation.facts.told_attacks.get(name, []) if leaf not in own]
    if not lacking:
        return
    if not log.complete:
        notebook.not_checked(
            f"whether {log.log} has entry {lacking[0]} of the federation's log, an attack",
            f"its copy is broken from entry {log.size} on",
        )
        return
    what = f"{name!r} has signed it and its own log does not have it, so that nobody holds it against a claim"
    notebook.failed(
        Failure(FEDERATION, lacking[0], "attack", what, federation.place, Place(log_name(name), log.size))
    )

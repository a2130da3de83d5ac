"""`hansa node budget`: what was granted, reserved, spent and remains, and what an agreement would cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa.agreement import Agreement
    from hansa.canonical import Json
    from hansa.ledger import Entry
    from hansa.ledger.standing import DatasetStanding, RunStanding, Standing


def budget(
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The node whose budget it is.")
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option("--ledger", metavar="FILE", help="A ledger, or a copy of one, without its node."),
    ] = None,
    forecast: Annotated[
        Path | None,
        typer.Option("--forecast", metavar="AGREEMENT", help="Also say how many of its rounds fit."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="ID", help="Of which dataset; by default the one granted last."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Show a member's budgets: granted, reserved, spent, remaining, by dataset, agreement and run.

    With --home every signature is verified against the node's keys and its officer's card. A ledger named by --ledger is
    read without keys. Nothing is written; the node may run meanwhile. With --forecast the status is 3 where not all
    rounds of the agreement fit.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        if (home is None) == (ledger is None):
            raise UsageError("name either --home or --ledger", remedy="See `hansa node budget --help`.")
        from hansa.ledger.standing import standing_of

        standing = standing_of(_of_home(home) if home is not None else _of_file(ledger or Path()))
        data: dict[str, object] = {
            "source": str(home or ledger),
            "signatures_verified": home is not None,
            **standing.as_dict(),
        }
        text = [_text(standing, verified=home is not None)]
        if forecast is not None or dataset is not None:
            chosen = _chosen(standing, dataset)
            data["chosen"] = chosen.granted.dataset_id
        if forecast is not None:
            from hansa.agreement import read_agreement

            told, words, fits = _forecast(read_agreement(forecast), chosen)
            data["forecast"] = {"agreement": str(forecast), **told}
            text.append(f"{forecast}, of dataset {chosen.granted.dataset_id}: {words}")
            status = ExitStatus.DONE if fits else ExitStatus.REFUSED
        emit(data, text="\n\n".join(text), output_format=output_format, status=status)
    raise typer.Exit(status)


def _of_home(home: Path) -> Iterator[Entry]:
    """The entries of a node's ledger, verified."""
    from hansa.ledger import SignedEntry
    from hansa_client.node_file import read_home
    from hansa_client.node_ledger import ledger_to_read

    with ledger_to_read(read_home(home)) as ledger:
        for data in ledger.log.entries():
            yield SignedEntry.parse(data).entry


def _of_file(path: Path) -> Iterator[Entry]:
    """The entries of a file, whose hashes are compared."""
    from hansa.ledger import LogView, SignedEntry, SqliteLogStore
    from hansa.ledger.places import require_log_file

    require_log_file(path)
    with closing(SqliteLogStore(path, read_only=True)) as store:
        view = LogView(store)
        view.check()
        for data in view.entries():
            yield SignedEntry.parse(data).entry


def _chosen(standing: Standing, dataset: str | None) -> DatasetStanding:
    from hansa.ledger.errors import NoBudgetError

    if not standing.datasets:
        raise NoBudgetError("nothing was granted in this ledger")
    if dataset is None:
        return standing.datasets[-1]
    for one in standing.datasets:
        if one.granted.dataset_id == dataset:
            return one
    raise UsageError(f"there is no dataset {dataset} in this ledger", remedy="Name one that is shown.")


def _forecast(agreement: Agreement, of: DatasetStanding) -> tuple[Mapping[str, Json], str, bool]:
    """What an agreement would cost: as JSON, in words, and whether it fits."""
    from hansa.privacy.forecast import forecast
    from hansa_client.protection import Protection

    frozen = agreement.frozen
    found = forecast(agreement.terms, of.book, None if frozen is None else frozen.noise_multiplier)
    granted, asked = Protection.granted(of.granted), Protection.of(agreement.terms.privacy)
    told, words = found.as_dict(), found.text()
    if granted != asked:
        why = f"the agreement protects a {asked}, and the budget was granted for a {granted}"
        return (
            {**told, "fits": False, "affordable_rounds": 0, "refused": why},
            f"no round fits: {why}.",
            False,
        )
    return {**told, "refused": None}, words, found.fits


def _text(standing: Standing, *, verified: bool) -> str:
    from hansa.privacy.words import no_total_words

    if not standing.datasets:
        return "Nothing was granted, and nothing was spent."
    checked = (
        "every entry is signed as it must be"
        if verified
        else "signatures were not checked: hansa audit verify does, with the member's keys"
    )
    parts = [f"Budget of {standing.member}; {checked}."]
    parts += ["\n".join(_dataset(dataset)) for dataset in standing.datasets]
    if len(standing.datasets) > 1 and not standing.in_all:
        parts.append(no_total_words([dataset.granted.unit for dataset in standing.datasets]) + ".")
    elif len(standing.datasets) > 1:
        unit = standing.datasets[0].granted.unit
        parts.append(
            "\n".join(
                f"Over all datasets one {unit} loses at most ε = {loss.epsilon:.4g} at δ = {loss.delta:g} "
                f"against {against}."
                for against, loss in standing.in_all
            )
        )
    return "\n\n".join(parts)


def _dataset(dataset: DatasetStanding) -> Iterator[str]:
    from hansa.privacy.words import rule_words
    from hansa_client.protection import Protection

    granted = dataset.granted
    yield f"Dataset {granted.dataset_id}, granted {granted.at}" + (
        f": {granted.reason}" if granted.reason else ""
    )
    yield f"  {Protection.granted(granted)}"
    if granted.disjoint_from:
        yield f"  shares no {granted.unit} with {', '.join(granted.disjoint_from)}"
    rows = [("against", "granted ε", "at δ", "spent", "reserved", "remaining")]
    rows += [
        (
            limit.against,
            _said(limit.limit.epsilon),
            f"{limit.limit.delta:g}",
            _said(limit.spent),
            _said(limit.reserved),
            _said(limit.remaining),
        )
        for limit in dataset.limits
    ]
    yield from _table(rows)
    yield "  " + rule_words(dataset.grant.everyone.rule).replace("\n", "\n  ")
    for agreement, used in dataset.agreements.items():
        yield f"  agreement {agreement}: ε = {_each(used)} by itself"
        yield from _table(_run(run) for run in dataset.runs if run.agreement == agreement)
    if not dataset.runs:
        yield "  No run has reserved anything."


def _run(run: RunStanding) -> tuple[str, ...]:
    counts = ", ".join(f"{kind} {run.released[kind]} of {count}" for kind, count in run.reserved.items())
    aborted = f", {run.aborted} aborted" if run.aborted else ""
    counted = "" if run.state == "closed" else "; all of it counts"
    return f"  run {run.run}", run.state, f"{counts} released{aborted}{counted}", f"ε = {_each(run.epsilon)}"


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    for row in listed:
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _each(epsilons: tuple[float, ...]) -> str:
    return " / ".join(map(_said, epsilons))


def _said(epsilon: float) -> str:
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "no bound"

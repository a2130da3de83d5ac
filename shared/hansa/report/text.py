"""A report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Literal, TypeAlias

from hansa.report import evaluations, mitigated, rows, sums, words
from hansa.report.publication import PublicationReport
from hansa.report.schema import MemberReport, Report, SecureSumTerms
from hansa.report.statement import largest_loss, statement, still_reserved

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Side: TypeAlias = Literal["left", "right"]
Columns: TypeAlias = Sequence[tuple[str, Side]]

MIN_WIDTH = 72


def render_text(report: Report, *, width: int = 110, colour: bool = False) -> str:
    """Draw a report for a terminal.

    Args:
        report: what to draw.
        width: columns of the terminal; below 72 it is drawn for 72.
        colour: whether to add ANSI styles, for a terminal that shows them.

    Returns:
        Lines that end in a newline, without trailing blanks.
    """
    from rich.console import Console

    width = max(width, MIN_WIDTH)
    sink = StringIO()
    console = Console(
        file=sink,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        highlight=False,
        emoji=False,
        markup=False,
        _environ={},  # neither NO_COLOR nor COLUMNS of the caller's shell: the arguments decide
    )
    for section in _sections(report, width):
        for part in section:
            console.print(part)
        console.print()
    return "".join(f"{line.rstrip()}\n" for line in sink.getvalue().rstrip().splitlines())


def _sections(report: Report, width: int) -> Iterator[Iterable[RenderableType]]:
    yield _title(report)
    yield _headline(report)
    yield [_privacy(report)]
    yield _members(report, width)
    for group in rows.groups(report.quality):
        yield _group(group)
    if report.fairness is not None:
        yield _evaluations(report)
    if report.mitigation is not None or report.adaptation is not None:
        yield _listed(mitigated.heading(report), mitigated.told(report))
    if report.secure_sum is not None:
        yield _secure_sum(report, report.secure_sum)
    if report.references:
        yield [_references(report)]
    if report.repeats:
        yield [_repeats(report)]
    if report.attack is not None:
        yield _listed("An attack on the trainer", report.attack.told)
    if report.publication is not None:
        yield _listed("Publication", tuple(_publication(report.publication)))
    for title, lines in (
        ("What to know before believing a number", report.notes),
        ("In the agreement, checked, and not in force yet", report.not_in_force),
        ("Changed on the command line", report.changes),
    ):
        if lines:
            yield _listed(title, lines)
    yield [_identity(report)]


def _evaluations(report: Report) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if report.fairness is not None and report.fairness.not_evaluated:
        yield Text(f"{evaluations.lacking(report)}: {report.fairness.not_evaluated}", style="bold yellow")
    for one in evaluations.shown(report):
        yield Text(f"Private evaluation by group: {one.heading.lower()}", style="bold")
        for sentence in one.sentences:
            yield Text(sentence)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("group", one.counted, one.columns[0]):
            table.add_column(column)
        for row in one.rows:
            table.add_row(row.name, row.size, row.cells[0])
        yield table


def _publication(told: PublicationReport) -> Iterator[str]:
    yield told.headline
    for one in told.conditions:
        if one.excused or not one.holds:
            yield f"{one.name}: {one.verdict}{f', {one.excused}' if one.excused else ''}. {one.sentence}"
    passed = sum(one.verdict == "pass" for one in told.conditions)
    if told.conditions:
        yield f"{passed} of {len(told.conditions)} conditions pass."


def _title(report: Report) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(report.title, style="bold")
    yield Text(_what(report), style="dim")
    if report.status == "partial":
        yield Text(f"Partial: {report.stopped_because}", style="bold yellow")


def _what(report: Report) -> str:
    noise = (
        ""
        if report.noise_multiplier is None
        else f", noise multiplier {words.plain(report.noise_multiplier)}"
    )
    return (
        f"{words.sentence_start(words.mechanism(report.mechanism))}{noise}; unit: {report.unit}; "
        f"{words.training(report)}; engine {report.engine}, seed {report.seed}"
    )


def _headline(report: Report) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    quality, first = report.quality, report.initial_quality
    grid = Table.grid(padding=(0, 2))
    lines = [
        (
            quality.mean_over_members,
            quality.intervals.mean_over_members,
            "mean over members, with its 95 % interval",
        ),
        (quality.pooled, quality.intervals.pooled, "all test records pooled"),
    ]
    if first is not None:
        lines.append(
            (first.mean_over_members, first.intervals.mean_over_members, "model 0, mean over members")
        )
    for index, (value, bounds, label) in enumerate(lines):
        name = words.sentence_start(words.metric(quality.metric)) if index == 0 else ""
        style = "bold" if index == 0 else ""
        grid.add_row(name, Text(words.quality(value), style=style), f"({words.interval(bounds)})", label)
    yield grid


def _privacy(report: Report) -> RenderableType:
    from rich.text import Text

    loss = largest_loss(report)
    line = statement(report).headline
    if loss is not None and loss.budget is not None:
        few = "" if loss.few is None or loss.few[1] is None else f"{words.budget(loss.few[1])} and "
        line += f" Budget: ε = {few}{words.budget(loss.budget)}."
    text = Text(line, style="bold red" if loss is None else "bold")
    if open_reservations := still_reserved(report):
        text.append(f"\n{open_reservations}", style="not bold")
    return text


def _table(title: str, columns: Columns) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        header_style="dim",
    )
    for index, (heading, side) in enumerate(columns):
        table.add_column(heading, justify=side, overflow="fold", no_wrap=index > 0)
    return table


_QUALITY: Columns = (("quality", "right"), ("95 % interval", "left"), ("records", "right"))
_RELEASED: Columns = (("ε released / budget", "right"),)
_RELEASED_SHARED: Columns = (("ε / budget, few", "right"), ("ε / budget, everyone", "right"))
_TAKING_PART: Columns = (
    ("δ", "right"),
    ("rounds", "right"),
    ("sent", "right"),
    ("received", "right"),
    ("training", "right"),
)
_WIDE = 91  # all columns of a member but its name
_MORE = 22  # the second ε where noise is shared
_NAME = 28  # a longer name is folded before the table is cut in two


def _members(report: Report, width: int) -> Iterator[RenderableType]:
    """What each member released, got and did: in one table, or in two where there is no room for one."""
    name: Columns = (("member", "left"),)
    spending = {member.name: member for member in report.members}
    estimates = {estimate.name: estimate for estimate in rows.members(report)}
    names = list(dict.fromkeys([*spending, *estimates]))
    shared = any(member.epsilon_colluding is not None for member in report.members)
    spent = _RELEASED_SHARED if shared else _RELEASED
    wide = width >= _WIDE + (_MORE if shared else 0) + min(_NAME, max(map(len, names), default=0))
    title = f"Members: ε released, and {words.metric(report.quality.metric)} on each one's test records"
    first = _table(title, [*name, *spent, *_QUALITY, *(_TAKING_PART if wide else ())])
    second = _table("Members: taking part", [*name, *_TAKING_PART])
    for owner in names:
        estimate, member = estimates.get(owner), spending.get(owner)
        quality = [words.ABSENT] * len(_QUALITY) if estimate is None else _estimate(estimate)
        released = [words.ABSENT] * len(spent) if member is None else _released(member, shared=shared)
        took_part = (
            [words.ABSENT] * len(_TAKING_PART) if member is None else _taking_part(member, report.rounds)
        )
        first.add_row(owner, *released, *quality, *(took_part if wide else ()))
        if member is not None:
            second.add_row(owner, *took_part)
    yield first
    if not wide:
        yield ""
        yield second


def _released(member: MemberReport, *, shared: bool) -> list[str]:
    everyone = _of_budget(member.epsilon, member.budget_epsilon)
    few = _of_budget(member.epsilon_colluding, member.budget_epsilon_colluding)
    return [few, everyone] if shared else [everyone]


def _of_budget(epsilon: float | None, budget: float | None) -> str:
    if epsilon is None:
        return words.ABSENT
    return words.epsilon(epsilon) + ("" if budget is None else f" / {words.budget(budget)}")


def _taking_part(member: MemberReport, rounds: int) -> list[str]:
    return [
        words.ABSENT if member.epsilon is None else words.plain(member.delta),
        f"{member.rounds_present}/{rounds}",
        words.amount_bytes(member.upload_bytes),
        words.amount_bytes(member.download_bytes),
        words.duration(member.train_seconds),
    ]


def _estimate(estimate: rows.Estimate) -> list[str]:
    return [words.quality(estimate.value), words.interval(estimate.interval), words.count(estimate.records)]


def _group(group: rows.Groups) -> Iterator[RenderableType]:
    table = _table(f"By {group.attribute}", ((group.attribute, "left"), *_QUALITY))
    for estimate in group.estimates:
        table.add_row(estimate.name, *_estimate(estimate))
    yield table
    yield rows.gap_in_words(group)


def _secure_sum(report: Report, terms: SecureSumTerms) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text("Secure sum", style="bold")
    yield Text(f"{sums.promise(terms)} {sums.checked(report)}\n")
    if report.shared_noise is not None:
        yield Text(f"{sums.shares(report.shared_noise)}\n")
    columns: Columns = (
        ("phase", "left"),
        ("to members", "right"),
        ("from members", "right"),
        ("time", "right"),
    )
    table = _table(
        "By phase, mean over rounds",
        [*columns, ("what happens", "left")],
    )
    for phase in sums.phases(report):
        table.add_row(
            phase.name,
            words.amount_bytes(round(phase.sent_bytes)),
            words.amount_bytes(round(phase.received_bytes)),
            words.duration(phase.seconds),
            phase.does,
        )
    if table.row_count:
        yield table
        yield Text("The sums from which members derive the model come on top.", style="dim")
    for drop in sums.drops(report):
        yield Text(f"dropped  {sums.drop_in_words(drop)}")
    for line in sums.blamed(report):
        yield Text(f"blamed   {line}")


def _references(report: Report) -> Table:
    quality = report.quality
    columns: Columns = (
        ("compared with", "left"),
        ("mean", "right"),
        ("difference", "right"),
        ("pooled", "right"),
        ("difference", "right"),
        ("the difference is", "left"),
    )
    table = _table("What federation and privacy cost (mean over members; pooled test records)", columns)
    mean, pooled = words.quality(quality.mean_over_members), words.quality(quality.pooled)
    table.add_row("this run", mean, "", pooled, "", "")
    for item in rows.comparisons(report):
        table.add_row(
            item.kind,
            words.quality(item.mean.value),
            words.difference(item.mean_difference),
            words.quality(item.pooled.value),
            words.difference(item.pooled_difference),
            item.meaning,
        )
    return table


def _repeats(report: Report) -> Table:
    seeds = words.joined([str(repeat.seed) for repeat in report.repeats])
    columns: Columns = (
        ("", "left"),
        ("mean", "right"),
        ("sd", "right"),
        ("lowest", "right"),
        ("highest", "right"),
    )
    table = _table(f"{words.counted(len(report.repeats), 'repeat')}, seeds {seeds}", columns)
    for spread in rows.spreads(report):
        values = (spread.mean, spread.deviation, spread.low, spread.high)
        table.add_row(spread.what, *(words.quality(value) for value in values))
    return table


def _listed(title: str, lines: Sequence[str]) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    yield Text(title, style="bold")
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(" -", Text(line))
    yield grid


def _identity(report: Report) -> RenderableType:
    from rich.table import Table

    sent = sum(member.upload_bytes for member in report.members)
    received = sum(member.download_bytes for member in report.members)
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    grid.add_row(
        "took",
        f"{words.duration(report.seconds)}, {words.amount_bytes(report.peak_rss_bytes)} of memory at most",
    )
    grid.add_row(
        "traffic", f"{words.amount_bytes(sent)} from members, {words.amount_bytes(received)} to them"
    )
    grid.add_row("agreement", report.agreement_id)
    grid.add_row("terms", report.terms_id)
    if report.derived_from is not None:
        grid.add_row("derived from", report.derived_from)
    grid.add_row("model", report.model_sha256)
    return grid

"""`hansa coordinator status --watch`: a league as a live table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from hansa_server.runs import RunRow, Watched

EVERY_S = 1.0


@dataclass(frozen=True)
class Seen:
    """A league at one moment.

    Attributes:
        listen: of the SuperLink.
        up: whether it answers.
        members: ``here``, ``away`` or ``unknown``, by name.
        run: the newest, if there is one.
        watched: what is counted of it.
    """

    listen: str
    up: bool
    members: Mapping[str, str]
    run: RunRow | None
    watched: Watched | None


def watch(
    look: Callable[[], Seen], *, ended: Callable[[], bool] = lambda: False, console: Console | None = None
) -> None:
    """Show what `look` sees until Ctrl-C.

    Args:
        look: at the league, about once a second.
        ended: asked after each look, for tests.
        console: to draw on; by default stdout.

    Raises:
        UsageError: stdout is no terminal.
    """
    if console is None and not sys.stdout.isatty():
        raise UsageError(
            "--watch draws on a terminal, and stdout is none", remedy="Leave it out, or use --format json."
        )
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=False) as live:
        try:
            while True:
                live.update(drawn(look()), refresh=True)
                if ended():
                    return
                time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return  # whoever has seen enough


def drawn(seen: Seen) -> Group:
    """The tables: members, and phases of the newest run."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    attendance = {} if seen.watched is None else seen.watched.attendance
    members = Table(
        "member", "place", "last exchange", title=Text(f"The league at {seen.listen}"), title_justify="left"
    )
    for name, place in seen.members.items():
        members.add_row(Text(name), place, attendance.get(name, "–"), style="" if place == "here" else "dim")
    parts: list[Text | Table] = [members]
    if not seen.up:
        parts.append(Text("The SuperLink does not answer."))
    if seen.run is None or seen.watched is None:
        return Group(*parts, Text("There is no run yet."))
    run = seen.run
    phase = f", in phase {run.phase}" if run.phase and run.state in {"running", "waiting"} else ""
    head = f"Run {run.run}: {run.state}, {run.round} of {run.rounds} rounds{phase}"
    parts.append(Text(head + (f" — {run.note}" if run.note else "")))
    phases = Table("phase", "exchanges", "mean s", "sent MB", "received MB")
    for one in seen.watched.phases:
        phases.add_row(
            one.phase,
            str(one.count),
            f"{one.seconds / one.count:.2f}",
            f"{one.sent_bytes / 1e6:.2f}",
            f"{one.received_bytes / 1e6:.2f}",
        )
    return Group(*parts, phases) if seen.watched.phases else Group(*parts)

"""`hansa node doctor|rehearse|withdraw`: whether a node can take part, what a round costs, and taking part no more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

_MARKS = {"good": "good ", "look": "look ", "wrong": "WRONG"}


def doctor(home: HomeOption, output_format: FormatOption = Format.TEXT) -> None:
    """Look at everything that a node needs: keys, certificate, agreements, budget, disk, device, SuperLink, clock.

    Nothing is changed, and the node may be running. Status 3 where something is wrong. HTTPS_PROXY is heeded.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        from hansa_client.doctor import examine
        from hansa_client.linking import link_of
        from hansa_client.node_file import read_home

        node = read_home(home)
        checks = list(examine(node, lambda: link_of(node).probe()))
        if any(check.verdict == "wrong" for check in checks):
            status = ExitStatus.REFUSED
        width = max(len(check.what) for check in checks)
        shown = [
            f"{_MARKS[check.verdict]}  {check.what:<{width}}  {check.found}"
            + (f"\n{' ' * (9 + width)}{check.remedy}" if check.remedy else "")
            for check in checks
        ]
        data = {"name": node.settings.name, "checks": [check.as_dict() for check in checks]}
        emit(data, text="\n".join(shown), output_format=output_format, status=status)
    raise typer.Exit(status)


def rehearse(
    frozen: Annotated[Path, typer.Argument(metavar="AGREEMENT", help="A frozen agreement.")],
    home: HomeOption,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Do a round's work on this member's own data, and throw it away: nothing is sent, and nothing is spent."""
    with reported(output_format):
        from hansa.agreement import read_agreement
        from hansa.cli.model_zero import model_zero
        from hansa.report.words import amount_bytes
        from hansa_client.node_file import read_home
        from hansa_client.rehearsal import rehearse as run

        node, agreement = read_home(home), read_agreement(frozen)
        agreement.require_frozen()
        if node.settings.name not in {member.name for member in agreement.terms.members}:
            raise UsageError(
                f"{node.settings.name!r} is no member of {frozen}", remedy="Name an agreement of this member."
            )
        found = run(node, agreement, model_zero(agreement))
        shown = {
            "parameters": found.parameters,
            "reading and building": f"{found.prepare_s:.1f} s, once",
            "training": f"{found.train_s:.1f} s a round",
            "encoding": f"{found.encode_s:.2f} s a round",
            "would leave": f"about {amount_bytes(found.upload_bytes)} a round",
            "memory": f"{found.peak_memory_bytes / 1e9:.2f} GB at most",
            "cut by the bound": f"{found.clipped} of {found.parameters} entries" if found.clipped else None,
        }
        text = f"{node.settings.name} can take part in {frozen}. Nothing was sent or spent.\n{lines(shown)}"
        emit(found.as_dict(), text=text, output_format=output_format)


def withdraw(
    frozen: Annotated[
        Path, typer.Argument(metavar="AGREEMENT", help="The agreement to take no part in any more.")
    ],
    home: HomeOption,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Take no part in an agreement any more. Runs that are open keep all that they had reserved.

    The folder of the agreement is moved to `withdrawn`; what the ledger and the others' logs say stays. Stop the node first.
    """
    with reported(output_format):
        from hansa.agreement import read_agreement
        from hansa_client.accepted import withdraw as take_out
        from hansa_client.node_file import read_home
        from hansa_client.node_ledger import ledger_of

        node, agreement = read_home(home), read_agreement(frozen)
        with ledger_of(node) as ledger:
            open_runs = [
                run
                for run in ledger.runs()
                if ledger.own.agreement_of(run) == agreement.agreement_id and ledger.own.closed(run) is None
            ]
            for run in open_runs:
                ledger.forfeit(agreement.agreement_id, run)
            if open_runs:
                ledger.checkpoint()
        place = take_out(node, agreement.agreement_id)
        data = {"agreement_id": agreement.agreement_id, "moved_to": str(place), "forfeited": open_runs}
        text = f"{node.settings.name} takes no part in {frozen} any more.\n{lines(data)}"
        emit(data, text=text, output_format=output_format)

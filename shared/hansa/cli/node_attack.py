"""`hansa node attack`: a member attacks its own trainer, with units that are nobody's."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import BudgetRefusedError, ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa.agreement import Agreement
    from hansa_client.attack import Attack


class Canaries(StrEnum):
    """What is put into the training."""

    GRADIENTS = "gradients"
    UNITS = "units"


def attack(
    agreement: Annotated[Path, typer.Argument(metavar="AGREEMENT", help="A frozen agreement.")],
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="Whose plan; by default the node's, or the first."),
    ] = None,
    canaries: Annotated[
        Canaries,
        typer.Option(
            "--canaries", help="gradients: the trainer itself; units: records in the agreement's model."
        ),
    ] = Canaries.GRADIENTS,
    count: Annotated[
        int,
        typer.Option("--count", min=2, max=1_000_000, help="How many canaries; each is in by a fair coin."),
    ] = 10_000,
    confidence: Annotated[
        float, typer.Option("--confidence", help="One minus the probability of a false accusation.")
    ] = 0.95,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of the coins, to be recorded; secret coins without one."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The node whose ledger takes the result.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DATA", help="Refused: a member's own records are not attacked."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Attack this member's trainer with canaries, and hold what they give away against what a run claims.

    No data of a member are read: canaries are generated, so nothing is charged. The status is 1 (HANSA-403) where the lower
    bound contradicts the claim. With --home the result is signed into the node's ledger, for audits to read.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        if data is not None:
            raise BudgetRefusedError(
                "an attack on a member's own records is a training on them, and is not reserved in any budget",
                remedy="Leave --data out: canaries are generated, and show what the trainer does.",
            )
        made = _attacked(agreement, member, canaries, count, confidence, seed, home)
        verdict = made.verdict
        status = ExitStatus.FAILED if verdict.contradicts else ExitStatus.DONE
        text = [f"Attack on the trainer of {made.member}", *_lines(made)]
        if home is not None:
            text.append(f"Signed into the ledger of {home}.")
        told = {"agreement": str(agreement), "recorded": home is not None, **made.as_dict()}
        if verdict.contradicts:
            told["code"] = "HANSA-403"
        emit(told, text="\n".join(text), output_format=output_format, status=status)
    raise typer.Exit(status)


def _lines(made: Attack) -> list[str]:
    from hansa.privacy.attack_words import told

    code = ["HANSA-403: an attack contradicts the ε of record; train no further on this agreement."]
    return [*told(made.canaries, made.verdict), *(code if made.verdict.contradicts else [])]


def _attacked(
    path: Path,
    member: str | None,
    canaries: Canaries,
    count: int,
    confidence: float,
    seed: int | None,
    home: Path | None,
) -> Attack:
    from hansa.agreement import read_agreement
    from hansa.privacy.one_run import check_confidence
    from hansa_client.attack import attack_gradients, attack_units, claim_of

    check_confidence(confidence)
    agreement = read_agreement(path)
    agreement.require_frozen()
    name = _member(agreement, member, home)
    claim_of(agreement, name)  # told before a model is built
    if home is not None:
        _require_signed(agreement, home)
    if canaries is Canaries.GRADIENTS:
        made = attack_gradients(agreement, name, count, confidence=confidence, seed=seed)
    else:
        from hansa.models import build_model
        from hansa_client.training import engine_for

        performance = agreement.performance
        built = build_model(agreement.terms, folder=agreement.folder, device=performance.device)
        engine = engine_for(built, performance)
        made = attack_units(agreement, engine, name, count, confidence=confidence, seed=seed)
    if home is not None:
        _record(agreement, made, home)
    return made


def _member(agreement: Agreement, member: str | None, home: Path | None) -> str:
    names = [one.name for one in agreement.terms.members]
    own = None
    if home is not None:
        from hansa_client.node_file import read_home

        own = read_home(home).signer().name
        if member not in {None, own}:
            raise UsageError(
                f"{home} is the home of {own!r}, and not of {member!r}", remedy="Leave --member out."
            )
    chosen = member or own or names[0]
    if chosen not in names:
        raise UsageError(
            f"{chosen!r} is no member of the agreement", remedy=f"Members are {', '.join(names)}."
        )
    return chosen


def _require_signed(agreement: Agreement, home: Path) -> None:
    from hansa_client.node_file import read_home
    from hansa_client.node_ledger import ledger_to_read

    with ledger_to_read(read_home(home)) as ledger:
        if ledger.own.signed_at(agreement.agreement_id) is None:
            raise UsageError(
                "the ledger of this node holds no signature of the agreement",
                remedy="Sign it first (hansa agreement sign), or leave --home out.",
            )


def _record(agreement: Agreement, made: Attack, home: Path) -> None:
    from hansa_client.node_file import read_home
    from hansa_client.node_ledger import ledger_of

    with ledger_of(read_home(home)) as ledger:
        ledger.record_attack(made.entry(agreement.agreement_id, ledger.own.now()))

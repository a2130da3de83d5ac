"""`hansa agreement plan`: what a promise would cost and bring, by mechanism, steps and rate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hansa.agreement import Agreement, read_agreement
from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus


def plan(
    file: Annotated[Path, typer.Argument(metavar="AGREEMENT", help="An agreement, as TOML, frozen or not.")],
    steps: Annotated[
        list[int] | None, typer.Option("--steps", min=1, help="Look at this many steps; repeat it.")
    ] = None,
    rates: Annotated[
        list[float] | None, typer.Option("--rate", help="Look at this sampling rate; repeat it.")
    ] = None,
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            min=1,
            help="Trained weights; by default those of the frozen agreement or of the model.",
        ),
    ] = None,
    epsilon_any: Annotated[
        float | None,
        typer.Option(
            "--epsilon-any", metavar="ε", help="Recommend nothing that costs more than this against everyone."
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also measure the time of a secure sum on this machine.")
    ] = False,
    quality: Annotated[
        float,
        typer.Option(
            "--quality", help="Assumed of the model: AUC of two labels, the share decided rightly of more."
        ),
    ] = 0.85,
    records: Annotated[
        float | None,
        typer.Option("--records", help="Evaluation records of all members; by default as declared."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Compare local and distributed noise at the same ε over step counts and rates, and recommend one.

    From public numbers only: the members' declared units, ε, δ, trained weights, threshold and colluding members. Status 3
    when nothing can be recommended. Where the agreement has evaluations and conditions, also which of them a league of this
    size can decide.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        agreement = read_agreement(file)
        from hansa.planning import advise, make_plan, plan_text  # the accountant: scipy

        if agreement.terms.private and dimension is None:
            dimension = _dimension(agreement)
        made = make_plan(agreement, dimension or 1, steps=steps or (), rates=rates or (), progress=_tell)
        if measure:
            from hansa_simulations.bench.pooled import seconds_of_a_sum

            _tell(f"time of a secure sum of {made.members} members and {made.dimension:,} weights")
            made = made.timed(seconds_of_a_sum(made.members, made.dimension))
        advice = advise(made, epsilon_any=epsilon_any)
        status = ExitStatus.DONE if advice.option is not None else ExitStatus.REFUSED
        recommended = None if advice.option is None else made.options.index(advice.option)
        data = {
            **made.as_dict(),
            "recommended": recommended,
            "reason": advice.reason,
            "epsilon_any_limit": epsilon_any,
            "timed": measure,
            "conditions": None,
            "never": [],
            "mitigation": None,
            "adaptation": None,
        }
        text = plan_text(made, advice)
        agreed = next(
            (o for o in made.options if (o.mechanism, o.steps, o.sampling_rate) == made.agreed), None
        )
        if (
            agreement.terms.mitigation is not None
            and agreed is not None
            and agreed.noise_multiplier is not None
        ):
            from hansa.planning.mitigation import adaptation_planned, rates_planned

            rates_by_group = rates_planned(agreement.terms, agreed.noise_multiplier)
            if rates_by_group is not None:
                data["mitigation"] = rates_by_group.as_dict()
                text += f"\n\n{rates_by_group.text()}"
            adapts = adaptation_planned(agreement.terms, made.dimension, agreed.noise_multiplier)
            if adapts is not None:
                data["adaptation"] = adapts.as_dict()
                text += f"\n\n{adapts.text()}"
        if agreement.terms.evaluation is not None:
            from hansa.fairness.beforehand import never_passing, outlook
            from hansa.planning.conditions import never_text, outlook_dict, outlook_text

            seen = outlook(agreement.terms, quality=quality, records=records)
            data["conditions"] = None if seen is None else outlook_dict(seen)
            text += f"\n\n{outlook_text(seen)}"
            if never := never_passing(agreement.terms):
                data["never"] = [problem.what for problem in never]
                text += f"\n\n{never_text(never)}"
        emit(data, text=text, output_format=output_format, status=status)
    raise typer.Exit(status)


def _dimension(agreement: Agreement) -> int:
    if agreement.frozen is not None:
        return agreement.frozen.model.parameters
    from hansa.models import build_model  # torch

    return int(build_model(agreement.terms, folder=agreement.folder).initial_vector().size)


def _tell(what: str) -> None:
    """What is computed next, for a person who waits at a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"planning: {what}", err=True)

"""`hansa agreement new|check|show|freeze`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from hansa.agreement import Agreement, not_in_force, parse_agreement, read_agreement
from hansa.agreement.terms import Encoder
from hansa.cli.options import ForceOption, FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hansa.models import BuiltModel

FileArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="An agreement, as TOML.")]


class Kind(StrEnum):
    """What a new agreement is about."""

    TABLE = "table"
    TEXT = "text"


def new(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path(
        "agreement.toml"
    ),
    kind: Annotated[Kind, typer.Option("--kind", help="What the members' data are.")] = Kind.TABLE,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Write a commented agreement to start from; it passes `hansa agreement check` as it is."""
    with reported(output_format):
        text = template(kind)
        _write(file, text, force=force)
        emit(
            {"file": str(file), "kind": kind.value, "terms_id": parse_agreement(text).terms_id},
            text=f"Wrote {file}. Change what is yours, then: hansa agreement check {file}",
            output_format=output_format,
        )


def check(file: FileArgument, output_format: FormatOption = Format.TEXT) -> None:
    """Check an agreement: tell everything that is wrong, or what it says in short."""
    with reported(output_format):
        summary = _summary(read_agreement(file))
        emit(summary, text=f"{file} is sound.\n{_lines(summary)}", output_format=output_format)


def show(file: FileArgument, output_format: FormatOption = Format.TEXT) -> None:
    """Show the terms with all defaults, their ids, and the public quantities that follow from them."""
    with reported(output_format):
        agreement = read_agreement(file)
        from hansa.agreement.writing import agreement_toml  # `check` starts without it

        derived = _derived(agreement)
        data = {
            "terms_id": agreement.terms_id,
            "agreement_id": _agreement_id(agreement),
            "terms": agreement.terms.tree(),
            "frozen": None if agreement.frozen is None else agreement.frozen.tree(),
            "derived": derived,
            "not_in_force": list(not_in_force(agreement.terms)),
        }
        head = _lines({name: data[name] for name in ("terms_id", "agreement_id", "not_in_force")})
        text = f"{head}\n\nWhat follows from the terms:\n{_lines(derived)}\n\n{agreement_toml(agreement)}"
        emit(data, text=text.rstrip(), output_format=output_format)


def freeze(
    file: FileArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write it; by default FILE.frozen.toml beside it."
        ),
    ] = None,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Build model 0, calibrate the noise, and write the agreement with both fixed in [frozen]."""
    with reported(output_format):
        agreement = read_agreement(file)
        target = file.with_suffix(".frozen.toml") if out is None else out
        if agreement.frozen is not None:
            raise UsageError(
                f"{file} is frozen already",
                remedy="Remove its [frozen] section to freeze it anew, under a new id.",
            )
        _refuse_existing(target, force=force)
        _refuse_moved_source(agreement, target)
        from hansa.agreement.freezing import freeze_with  # numpy and the accountant
        from hansa.agreement.writing import agreement_toml
        from hansa.models import build_model  # torch

        built = build_model(agreement.terms, folder=agreement.folder)
        frozen = freeze_with(agreement, built, _model_zero(agreement, built))
        _write(target, agreement_toml(frozen), force=force)
        summary = {"file": str(target), **_summary(frozen)}
        emit(summary, text=f"Wrote {target}.\n{_lines(_summary(frozen))}", output_format=output_format)


def template(kind: Kind) -> str:
    """The text of a starting agreement."""
    from importlib.resources import files  # 20 ms that only `new` needs

    return files("hansa.agreement").joinpath("templates", f"{kind}.toml").read_text(encoding="utf-8")


def _model_zero(agreement: Agreement, built: BuiltModel) -> npt.NDArray[np.float64]:
    """The trained weights before the first round: as built, or after the public warm start of generated tasks."""
    model = agreement.terms.model
    if not isinstance(model, Encoder) or model.warm_start == 0:
        return built.initial_vector()
    from hansa_simulations.warm_start import warm_start  # the generator's public split

    return warm_start(agreement, built)


def _summary(agreement: Agreement) -> dict[str, Any]:
    """What `check` answers: ids, who, what is promised, what is not kept yet."""
    privacy = agreement.terms.privacy
    return {
        "terms_id": agreement.terms_id,
        "agreement_id": _agreement_id(agreement),
        "task": agreement.terms.task.name,
        "members": [member.name for member in agreement.terms.members],
        "mechanism": privacy.mechanism,
        "epsilon": privacy.epsilon if agreement.terms.private else None,
        "delta": privacy.delta if agreement.terms.private else None,
        "unit": privacy.unit,
        "steps": privacy.steps,
        "not_in_force": list(not_in_force(agreement.terms)),
    }


def _derived(agreement: Agreement) -> dict[str, Any]:
    """Public quantities that the terms fix without naming them."""
    from hansa.protocol import public_weights  # numpy

    terms = agreement.terms
    quantities: dict[str, Any] = {
        "public_weights": dict(public_weights(terms)),
        "expected_units_per_step": {m.name: terms.privacy.sampling_rate * m.units for m in terms.members},
        "local_steps_per_round": terms.local_steps,
        "rounds": terms.training.rounds,
    }
    if agreement.frozen is not None:
        quantities["noise_multiplier"] = agreement.frozen.noise_multiplier
        quantities["parameters"] = agreement.frozen.model.parameters
    return quantities


def _agreement_id(agreement: Agreement) -> str | None:
    return None if agreement.frozen is None else agreement.agreement_id


def _lines(values: Mapping[str, Any]) -> str:
    """Names and values as aligned lines; what is absent is left out."""
    shown = {name.replace("_", " "): value for name, value in values.items() if value not in (None, [])}
    width = max(map(len, shown))
    return "\n".join(f"  {name:<{width}}  {_said(value, 4 + width)}" for name, value in shown.items())


def _said(value: object, indent: int) -> str:
    """A value in a person's words; sentences of a list stand under each other."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item:.4g}" for name, item in value.items())
    if isinstance(value, list):
        return ("\n" + indent * " " if any(" " in item for item in value) else ", ").join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refuse_existing(target: Path, *, force: bool) -> None:
    """Tell before any work what would otherwise be told when its result is written."""
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", remedy="Make it first, or name another file.")
    if target.exists() and not force:
        raise OutputExistsError(
            f"{target} is already there", remedy="Name another file, or pass --force to replace it."
        )


def _refuse_moved_source(agreement: Agreement, target: Path) -> None:
    """A relative model folder is part of the terms, and starts at the folder of the agreement's file."""
    model = agreement.terms.model
    if not isinstance(model, Encoder) or model.source is None or Path(model.source).is_absolute():
        return
    if (agreement.folder / model.source).exists() and target.parent.resolve() != agreement.folder.resolve():
        raise UsageError(
            f"{target} would not find the model: model.source = {model.source!r} starts at {agreement.folder}",
            remedy="Write the frozen agreement beside the agreement, or name the model by an absolute path.",
        )


def _write(target: Path, text: str, *, force: bool) -> None:
    """Write a whole file; whoever else created it in the meantime is not overwritten without `force`."""
    _refuse_existing(target, force=force)
    try:
        with target.open("w" if force else "x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except OSError as error:
        reason = error.strerror or "it cannot be written"
        raise UsageError(f"cannot write {target}: {reason}", remedy="Name another file.") from None

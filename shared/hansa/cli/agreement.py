"""`hansa agreement new|check|show|freeze`."""

from __future__ import annotations

import math
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from hansa.agreement import Agreement, not_in_force, parse_agreement, read_agreement
from hansa.agreement.terms import Encoder
from hansa.cli.files import refuse_existing, write_text
from hansa.cli.lines import lines
from hansa.cli.options import AmendmentsOption, ForceOption, FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa.identity import Roster

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
        write_text(file, text, force=force)
        emit(
            {"file": str(file), "kind": kind.value, "terms_id": parse_agreement(text).terms_id},
            text=f"Wrote {file}. Change what is yours, then: hansa agreement check {file}",
            output_format=output_format,
        )


def check(
    file: FileArgument,
    signatures: Annotated[
        Path | None,
        typer.Option("--signatures", metavar="FOLDER", help="Also verify the members' signatures there."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Check an agreement: tell everything that is wrong, or what it says in short.

    With --signatures also who has signed it: status 0 when all members have, 3 while some are missing, and 4 when a
    signature is false.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        agreement = read_agreement(file)
        if agreement.terms.published:
            from hansa.fairness.beforehand import require_decidable  # numpy and the accountant

            require_decidable(agreement.terms)
        summary = agreement_summary(agreement)
        if signatures is not None:
            from hansa.cli.signing import signature_summary  # cryptography

            summary |= signature_summary(agreement, signatures, file.stem)
            status = ExitStatus.REFUSED if summary["missing_signatures"] else ExitStatus.DONE
        text = f"{file} is sound.\n{lines(summary)}"
        emit(summary, text=text, output_format=output_format, status=status)
    raise typer.Exit(status)


def show(
    file: FileArgument, amendments: AmendmentsOption = None, output_format: FormatOption = Format.TEXT
) -> None:
    """Show the terms with all defaults, their ids, and the public quantities that follow from them.

    Where keys are pinned, also the roster: whose key has which fingerprint. With --amendments it is the roster in
    force after those that are approved, and the others are listed as pending.
    """
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
        head = lines({name: data[name] for name in ("terms_id", "agreement_id", "not_in_force")})
        text = f"{head}\n\nWhat follows from the terms:\n{lines(derived)}\n\n"
        if amendments or (agreement.frozen is not None and agreement.frozen.member_keys):
            from hansa.agreement.amendments import roster_in_force  # cryptography
            from hansa.cli.amending import standing_lines, standing_tree

            standing = roster_in_force(agreement, amendments or ())
            data["roster"] = standing_tree(standing)
            text += f"{standing_lines(standing)}\n\n"
        text += agreement_toml(agreement)
        emit(data, text=text.rstrip(), output_format=output_format)


def freeze(
    file: FileArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write it; by default FILE.frozen.toml beside it."
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FOLDER", help="Pin the keys of the cards NAME.pub there."),
    ] = None,
    auditor: Annotated[
        list[str] | None,
        typer.Option("--auditor", metavar="NAME", help="Pin this auditor's key too; once for each."),
    ] = None,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Build model 0, calibrate the noise, and write the agreement with both fixed in [frozen].

    With --keys the public keys of all members, the coordinator and the named auditors are pinned too; without, the
    agreement serves simulations and cannot be signed. Everybody who freezes the same file with the same cards gets
    the same agreement id.
    """
    with reported(output_format):
        agreement = read_agreement(file)
        target = file.with_suffix(".frozen.toml") if out is None else out
        if agreement.frozen is not None:
            raise UsageError(
                f"{file} is frozen already",
                remedy="Remove its [frozen] section to freeze it anew, under a new id.",
            )
        refuse_existing(target, force=force)
        _refuse_moved_source(agreement, target)
        roster = _roster(agreement, keys, auditor or [])
        from hansa.agreement.freezing import freeze_with  # numpy and the accountant
        from hansa.agreement.writing import agreement_toml
        from hansa.cli.model_zero import model_zero
        from hansa.models import build_model  # torch

        built = build_model(agreement.terms, folder=agreement.folder)
        if agreement.terms.evaluation is not None and find_spec("onnx") is not None:
            from hansa_server.publication.judged import require_exportable  # of the extra for coordinators

            require_exportable(agreement.terms, built)
        frozen = freeze_with(agreement, built, model_zero(agreement, built))
        if roster is not None:
            from hansa.agreement.roster import pin

            frozen = pin(frozen, roster)
        write_text(target, agreement_toml(frozen), force=force)
        summary = {"file": str(target), **agreement_summary(frozen)}
        emit(
            summary, text=f"Wrote {target}.\n{lines(agreement_summary(frozen))}", output_format=output_format
        )


def template(kind: Kind) -> str:
    """The text of a starting agreement."""
    from importlib.resources import files  # 20 ms that only `new` needs

    return files("hansa.agreement").joinpath("templates", f"{kind}.toml").read_text(encoding="utf-8")


def _roster(agreement: Agreement, keys: Path | None, auditors: list[str]) -> Roster | None:
    """The keys of all parties, by their cards; `None` where none are to be pinned."""
    if keys is None:
        if auditors:
            raise UsageError("--auditor needs --keys", remedy="Name the folder that holds the cards.")
        return None
    if not keys.is_dir():
        raise UsageError(
            f"there is no folder {keys}", remedy="Name the folder that holds the cards NAME.pub."
        )
    from hansa.identity.cards import roster_of_cards

    return roster_of_cards(keys, [member.name for member in agreement.terms.members], auditors)


def agreement_summary(agreement: Agreement) -> dict[str, Any]:
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
        **_mitigation(agreement),
        **(_shared_noise(agreement) if privacy.mechanism == "distributed" else {}),
        "not_in_force": list(not_in_force(agreement.terms)),
    }


def _mitigation(agreement: Agreement) -> dict[str, Any]:
    """Rates by group as they are drawn, where the agreement has them; the largest is the one that is charged. And what adapts."""
    mitigation = agreement.terms.mitigation
    if mitigation is None:
        return {}
    found: dict[str, Any] = {}
    if mitigation.sampling is not None:
        rates = mitigation.sampling.rates
        told = {value: rates[value] * agreement.terms.privacy.sampling_rate for value in sorted(rates)}
        found["sampling_by_group"] = {"attribute": mitigation.sampling.attribute, "rates": told}
    clipping, weights = mitigation.clipping, mitigation.weights
    if clipping is not None:
        found["adaptive_clipping"] = {
            "smallest": clipping.smallest, "largest": clipping.largest, "quantile": clipping.quantile
        }  # fmt: skip
    if weights is not None:
        found["weights_by_group"] = {"attribute": weights.attribute, "smallest": weights.smallest}
    if clipping is not None or weights is not None:
        shares = sum(one.noise_share for one in (clipping, weights) if one is not None)
        found["gradient_noise_factor"] = 1 / math.sqrt(1 - shares)
    return found


def _shared_noise(agreement: Agreement) -> dict[str, Any]:
    """Against whom each ε of an agreement under distributed noise holds, and what it rests on."""
    from hansa.privacy.distributed import SharedNoise, agreed_noise, losses  # the accountant

    terms, frozen = agreement.terms, agreement.frozen
    noise = agreed_noise(terms, None if frozen is None else frozen.noise_multiplier)
    told = losses(terms, noise)
    shared = SharedNoise.of(terms, 1 if frozen is None else frozen.model.parameters, noise)
    wraps = shared.wrap_probability(terms.charged_steps)
    return {
        "epsilon_any": told.epsilon_any,
        "epsilon_colluding": told.epsilon_colluding,
        "colluding": shared.colluding,
        "smallest_sum": shared.smallest_sum,
        "promised_shares": shared.honest,
        "noise_multiplier": noise,
        "noise_multiplier_of_a_share": shared.share_multiplier,
        "rotation": terms.privacy.rotation,
        "noise_in_parts": terms.privacy.noise_in_parts,
        "wrap_probability" if frozen is not None else "wrap_probability_per_weight": wraps,
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

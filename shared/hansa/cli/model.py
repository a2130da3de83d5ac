"""`hansa model …`: what a reader of a published model does with it; neither torch nor a network is needed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.options import ForceOption, FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus

if TYPE_CHECKING:
    from hansa.artifact import Predictions, VerifiedPackage
    from hansa.fairness.intervals import Estimate
    from hansa.fairness.monitoring import Drift

PackageArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the package.")]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FILE",
        help="Keys that came another way (`hansa agreement keys`); without them those in the package are used.",
    ),
]


def verify(
    folder: PackageArgument, keys: KeysOption = None, output_format: FormatOption = Format.TEXT
) -> None:
    """Check signature, files, members' approvals, the log's proof, the model's operators and every ε."""
    with reported(output_format):
        package = _verified(folder, keys)
        emit(_told(package), text=_words(package), output_format=output_format)


def predict(
    folder: PackageArgument,
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A CSV with the agreement's features, or a text a line.")
    ],
    keys: KeysOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write a CSV here instead of to stdout.")
    ] = None,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Verify a package, then run its model on every row: the class, and the probability of each."""
    with reported(output_format):
        from hansa.artifact import predict as run
        from hansa.cli.files import refuse_existing, write_text

        if out is not None:
            refuse_existing(out, force=force)
        found = run(_verified(folder, keys), source)
        table = _csv(found)
        for line in found.unprotected:
            typer.echo(f"note: {line}", err=True)
        if out is not None:
            write_text(out, table, force=force)
        rows = [
            {"label": label, "probabilities": dict(zip(found.labels, map(float, row), strict=True))}
            for label, row in zip(found.decisions, found.probabilities, strict=True)
        ]
        text = table.rstrip("\n") if out is None else f"Wrote {len(rows)} predictions to {out}."
        emit({"rows": rows, "unprotected": list(found.unprotected)}, text=text, output_format=output_format)


def monitor(
    folder: PackageArgument,
    copy: Annotated[
        Path, typer.Argument(metavar="LOG", help="A copy of the federation's log, as a folder of tiles.")
    ],
    keys: KeysOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Compare a later private evaluation of a published model with the one that it was published by, group by group.

    Status 3 where a group is served worse by now.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        from hansa.artifact.monitoring import later_evaluation
        from hansa.artifact.monitoring import monitor as compared

        package = _verified(folder, keys)
        later = later_evaluation(package, copy)
        drifts = compared(package, later)
        worse = [one.name for one in drifts if one.change == "worse"]
        status = ExitStatus.REFUSED if worse else ExitStatus.DONE
        data: dict[str, object] = {
            "name": package.name,
            "run": later.run,
            "number": later.number,
            "contributors": list(later.contributors),
            "metric": package.fairness.metric,
            "groups": [_drift(one) for one in drifts],
        }
        lines = [
            f"{package.name}: {package.fairness.metric} of evaluation {later.number} of run {later.run} beside the published one"
        ]
        for one in drifts:
            moved = (
                ""
                if one.moved is None
                else f" {one.moved.value:+.3f} ({one.moved.low:+.3f} to {one.moved.high:+.3f})"
            )
            lines.append(f"  {one.name}: {one.change}{moved}")
        emit(data, text="\n".join(lines), output_format=output_format, status=status)
    raise typer.Exit(status)


def _drift(one: Drift) -> dict[str, object]:
    def bounds(found: Estimate | None) -> dict[str, float] | None:
        return None if found is None else {"value": found.value, "low": found.low, "high": found.high}

    return {
        "group": one.name,
        "change": one.change,
        "before": bounds(one.before),
        "after": bounds(one.after),
        "moved": bounds(one.moved),
        "records_before": one.records_before,
        "records_after": one.records_after,
    }


def _verified(folder: Path, keys: Path | None) -> VerifiedPackage:
    from hansa.artifact import verify_package
    from hansa.ledger import TrustedKeys

    return verify_package(folder, None if keys is None else TrustedKeys.read(keys))


def _told(package: VerifiedPackage) -> dict[str, object]:
    return {
        "name": package.name,
        "agreement_id": package.agreement.agreement_id,
        "artifact_sha256": package.entry.artifact_sha256,
        "steps": list(package.entry.steps),
        "approved_by": list(package.approved_by),
        "cosigned_by": list(package.cosigned_by),
        "operators": list(package.graph.operators),
        "epsilon": package.privacy.epsilon,
        "delta": package.privacy.delta,
        "unit": package.privacy.unit,
        "conditions": [verdict.model_dump() for verdict in package.fairness.verdicts],
        "keys_fingerprint": package.keys.fingerprint,
        "keys_of_package": package.keys_of_package,
    }


def _words(package: VerifiedPackage) -> str:
    privacy = package.privacy
    claim = (
        f"ε = {privacy.epsilon:.4g} at δ = {privacy.delta:g} per {privacy.unit}, recomputed from its events"
        if privacy.claimed
        else "no privacy is claimed"
    )
    lines = [
        f"{package.name}: the package is what was published.",
        f"  files       {len(package.entry.files)} named by the publication, each with the hash that members approved",
        f"  approved by {', '.join(package.approved_by)}",
        f"  log         entry proven under a checkpoint cosigned by {len(package.cosigned_by)}",
        f"  gate        {_gate(package)}",
        *(f"              {one.name}: {one.excused}" for one in package.fairness.verdicts if one.excused),
        f"  model       {package.graph.nodes} operators, all of those that are run as data",
        f"  privacy     {claim}",
        f"  keys        {package.keys.fingerprint}",
    ]
    if package.keys_of_package:
        lines.append(
            "  The keys came with the package. Compare this fingerprint with the federation over another channel, or "
            "pass --keys."
        )
    return "\n".join(lines)


def _gate(package: VerifiedPackage) -> str:
    verdicts = package.fairness.verdicts
    passed = sum(one.verdict == "pass" for one in verdicts)
    excused = sum(bool(one.excused) for one in verdicts)
    told = f"recomputed from the noisy sums: {passed} of {len(verdicts)} conditions pass"
    return f"{told}, {excused} excused by name" if excused else told


def _csv(found: Predictions) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["label", *found.labels])
    for label, row in zip(found.decisions, found.probabilities, strict=True):
        writer.writerow([label, *(f"{value:.6f}" for value in row)])
    return sink.getvalue()

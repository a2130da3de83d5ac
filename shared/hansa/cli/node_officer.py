"""`hansa node officer|grant`: the privacy officer's key, and the budgets that it grants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hansa.cli.files import make_folder, refuse_existing
from hansa.cli.lines import lines
from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from hansa.ledger import SignedEntry
    from hansa.privacy.loss import PrivacyLoss
    from hansa.privacy.records import Grant
    from hansa_client.ledger import MemberLedger


class UnitName(StrEnum):
    """Whose presence a budget hides."""

    RECORD = "record"
    PATIENT = "patient"


NameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The member, by its name in agreements.")
]


def officer(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write key and card.")],
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Make the key of a member's privacy officer, on the officer's own machine, and its public card for the node.

    Whoever has the key grants the member's budgets, and nobody else does: it does not belong on the node, nor into the
    hands of who runs it.
    """
    with reported(output_format):
        from hansa.identity.files import write_new
        from hansa.identity.keys import Signer
        from hansa.identity.roster import NAME
        from hansa.ledger import officer_of
        from hansa.ledger.officer import card_name, officer_card

        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name",
                remedy="Letters, digits, '_', '.' and '-', up to 64, the first no mark.",
            )
        key, public = out / f"{name}.officer.key", out / card_name(name)
        there = [path for path in (key, public) if path.exists()]
        if there:
            raise OutputExistsError(
                f"{there[0]} is already there", remedy="No key is overwritten; name another folder."
            )
        make_folder(out, 0o700)
        signer = Signer.generate(officer_of(name))
        card = officer_card(signer)
        signer.save(key)
        write_new(public, card.line.encode())
        data = {"key": str(key), "card": str(public), "fingerprint": card.fingerprint}
        text = (
            f"Made the key of {name}'s privacy officer.\n{lines(data)}\n"
            f"Keep the key here. Give {public.name} to who runs the node (hansa node init {name} --officer "
            f"{public.name}), and compare the fingerprint when the agreement is signed."
        )
        emit(data, text=text, output_format=output_format)


def grant(
    home: Annotated[
        Path | None, typer.Option("--home", metavar="DIR", help="The node whose ledger takes the grant.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="The most that may ever be lost.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option("--delta", help="With which probability it may be more.")
    ] = None,
    unit: Annotated[UnitName | None, typer.Option("--unit", help="Whose presence is hidden.")] = None,
    max_records: Annotated[
        int | None,
        typer.Option(
            "--max-records", min=1, help="Records that one patient contributes at most; a record is 1."
        ),
    ] = None,
    reservations: Annotated[
        int, typer.Option("--reservations", min=1, help="Runs that the member means to take part in.")
    ] = 1,
    colluding: Annotated[
        int | None, typer.Option("--colluding", min=1, help="A second limit, against so many other members.")
    ] = None,
    epsilon_colluding: Annotated[
        float | None, typer.Option("--epsilon-colluding", help="That limit, at the same δ.")
    ] = None,
    disjoint_from: Annotated[
        list[str] | None,
        typer.Option(
            "--disjoint-from", metavar="ID", help="A dataset that shares no unit with this one; repeat it."
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="In words, for the record.")] = "",
    officer_key: Annotated[
        Path | None, typer.Option("--officer-key", metavar="FILE", help="The privacy officer's private key.")
    ] = None,
    member: Annotated[
        str | None, typer.Option("--member", metavar="NAME", help="Whose budget, where there is no --home.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the signed grant to a file, to keep."),
    ] = None,
    signed: Annotated[
        Path | None, typer.Option("--signed", metavar="FILE", help="Take a grant that was signed before.")
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Grant a budget for a new dataset, signed by the privacy officer, and put it into the member's ledger.

    With the key at hand: --officer-key with --home. With the key elsewhere: the officer signs on its own machine,
    --officer-key with --member and --out, and whoever runs the node takes the file, --signed with --home. Keep the file:
    a ledger that was lost is rebuilt upon it. A budget holds for the whole life of its dataset and is never raised; a
    second grant over the same units adds up with the first.
    """
    with reported(output_format), ExitStack() as stack:
        asked = _Asked(epsilon, delta, unit, max_records, reservations, colluding, epsilon_colluding)
        asked.require_coherent(home, member, officer_key, signed, out)
        if out is not None:
            refuse_existing(out, force=None)
        from hansa.ledger.files import entry_lines, read_entry

        ledger, began, name = None, False, member or ""
        if home is not None:
            from hansa_client.node_file import read_home
            from hansa_client.node_ledger import ledger_of, lost_ledger

            node = read_home(home)
            left = lost_ledger(node)
            if officer_key is not None and left is not None:
                raise UsageError(
                    f"this node had a ledger and lost it ({left} is left of it): a new grant would be a second budget for "
                    "the same data",
                    remedy=f"Put the kept grant back: hansa node grant --home {home} --signed FILE",
                )
            name, began = node.settings.name, not node.ledger.exists()
            ledger = stack.enter_context(ledger_of(node, begin=True))
        if officer_key is not None:
            entry = _sign(officer_key, name, asked.limits(disjoint_from or ()), asked, reason, ledger)
        else:
            entry = read_entry(signed or Path())
        total = _in_all(entry, ledger)
        units = {one.unit for one in ledger.grants.values()} if ledger else set()
        held = ledger is not None and ledger.holds(entry.encoded)
        if ledger is not None:
            ledger.grant(entry)
        if out is not None:
            from hansa.identity.files import write_new

            write_new(out, entry_lines(entry).encode())
        data, text = _shown(entry, total, units, began=began, out=out, home=home)
        data["held_before"] = held
        if home is not None:
            text += f"\n{_taken_words(home, name, held=held)}"
        emit(data, text=text, output_format=output_format)


@dataclass(frozen=True)
class _Asked:
    """What the command line says of a new grant."""

    epsilon: float | None
    delta: float | None
    unit: UnitName | None
    max_records: int | None
    reservations: int
    colluding: int | None
    epsilon_colluding: float | None

    def require_coherent(
        self,
        home: Path | None,
        member: str | None,
        officer_key: Path | None,
        signed: Path | None,
        out: Path | None,
    ) -> None:
        """Refuse what does not go together, before any key is read."""
        said = {
            "--epsilon": self.epsilon,
            "--delta": self.delta,
            "--unit": self.unit,
            "--max-records": 1 if self.unit is UnitName.RECORD else self.max_records,
        }
        given = [name for name, value in said.items() if value is not None]
        numbers = bool(given) or self.max_records is not None or self.colluding is not None
        wrong = ""
        if (signed is None) == (officer_key is None):
            wrong = "name either --officer-key or --signed"
        elif (home is None) == (member is None):
            wrong = "a grant goes into the ledger of a --home, or with --member into a file"
        elif home is None and (out is None or signed is not None):
            wrong = "without --home a grant is signed into a file: --officer-key, --member and --out"
        elif signed is not None and numbers:
            wrong = "a grant that was signed before says its numbers itself: leave them out"
        elif signed is None and len(given) < len(said):
            wrong = f"a grant needs {', '.join(name for name in said if name not in given)}"
        elif (self.colluding is None) != (self.epsilon_colluding is None):
            wrong = "--colluding and --epsilon-colluding stand together"
        if wrong:
            raise UsageError(wrong, remedy="See `hansa node grant --help`.")

    def limits(self, disjoint_from: Sequence[str]) -> Grant:
        """The grant, of a dataset that has a new id.

        Raises:
            PrivacyParameterError: the numbers state no guarantee.
        """
        from hansa.errors import PrivacyParameterError
        from hansa.privacy.composition import rule_for
        from hansa.privacy.loss import PrivacyLoss
        from hansa.privacy.records import Grant, Limit, new_dataset_id

        loss = PrivacyLoss(self.epsilon or 0.0, self.delta or 0.0)
        if not 0 < loss.epsilon < float("inf"):
            raise PrivacyParameterError(f"ε = {loss.epsilon:g} is no limit: above 0, and finite")
        rule = rule_for(loss, self.reservations)
        few = None
        if self.epsilon_colluding is not None:
            few = Limit(PrivacyLoss(self.epsilon_colluding, loss.delta), rule)
        return Grant(new_dataset_id(), Limit(loss, rule), few, self.colluding or 0, tuple(disjoint_from))


def _sign(
    key: Path, name: str, limits: Grant, asked: _Asked, reason: str, ledger: MemberLedger | None
) -> SignedEntry:
    from hansa.identity.keys import Signer
    from hansa.ledger import officer_of
    from hansa.ledger.officer import sign_grant

    unknown = [other for other in limits.disjoint_from if ledger is not None and other not in ledger.books]
    if unknown:
        raise UsageError(
            f"dataset {unknown[0]} has no budget in this ledger, so that nothing can be disjoint from it",
            remedy="Name datasets as `hansa node budget` shows them.",
        )
    return sign_grant(
        Signer.load(officer_of(name), key),
        name,
        limits,
        unit="patient" if asked.unit is UnitName.PATIENT else "record",
        max_records_per_unit=asked.max_records or 1,
        at=datetime.now(UTC),
        reason=reason,
    )


def _in_all(entry: SignedEntry, ledger: MemberLedger | None) -> PrivacyLoss | None:
    """What a unit can lose over all of the member's datasets; `None` for one dataset alone, and for several units.

    Raises:
        EntryError: it is no grant.
        PrivacyParameterError: nothing could be promised any more.
    """
    from hansa.ledger import BudgetGranted
    from hansa.ledger.budgets import total_granted
    from hansa.ledger.errors import EntryError

    if not isinstance(entry.entry, BudgetGranted):
        raise EntryError(f"a {entry.entry.type} is no grant of a budget")
    grants = {**({} if ledger is None else ledger.grants), entry.entry.dataset_id: entry.entry}
    return None if len(grants) == 1 else total_granted(list(grants.values()))


def _shown(
    signed: SignedEntry,
    total: PrivacyLoss | None,
    others: Collection[str],
    *,
    began: bool,
    out: Path | None,
    home: Path | None,
) -> tuple[dict[str, object], str]:
    from hansa.ledger import BudgetGranted
    from hansa.ledger.budgets import grant_of
    from hansa.privacy.words import loss_words, no_total_words, rule_words
    from hansa_client.protection import Protection

    entry = signed.entry
    if not isinstance(entry, BudgetGranted):
        return {}, ""
    grant = grant_of(entry)
    limits = {
        against: loss_words(limit.loss.epsilon, limit.loss.delta) for against, _, limit in grant.limits()
    }
    remark = _colluding_words(grant)
    data: dict[str, object] = {
        "member": entry.member,
        "dataset": entry.dataset_id,
        "unit": entry.unit,
        "max_records_per_unit": entry.max_records_per_unit,
        "adjacency": entry.adjacency,
        "limits": [
            {"against": against, **limit.loss.as_dict(), "rule": dict(limit.rule.as_dict())}
            for against, _, limit in grant.limits()
        ],
        "disjoint_from": list(entry.disjoint_from),
        "remark": remark,
        "in_all": None if total is None else total.as_dict(),
        "reason": entry.reason,
        "file": None if out is None else str(out),
        "home": None if home is None else str(home),
        "began_ledger": began,
    }
    text = [
        f"{entry.member}'s privacy officer grants, for the whole life of dataset {entry.dataset_id}:",
        lines(
            {
                **{f"against {against}": words for against, words in limits.items()},
                "for each": str(Protection.granted(entry)),
                "disjoint from": list(entry.disjoint_from),
                "reason": entry.reason or None,
            }
        ),
        rule_words(grant.everyone.rule),
    ]
    if remark is not None:
        text.append(remark)
    if total is not None:
        text.append(
            f"With the member's other datasets, one {entry.unit} loses at most "
            f"{loss_words(total.epsilon, total.delta)}: what is not declared disjoint adds up."
        )
    elif units := {*others} - {entry.unit}:
        text.append(f"{no_total_words({*units, entry.unit})}.")
    if out is not None:
        text.append(f"Written to {out}. Keep it: a ledger that is lost is rebuilt upon it.")
    if began:
        text.append(
            "The ledger is new. If this member had one before, rebuild it now: hansa node recover --home DIR"
        )
    return data, "\n".join(text)


def _taken_words(home: Path, name: str, *, held: bool) -> str:
    """What became of a grant that a node was given."""
    if held:
        return f"The ledger of {name} in {home} held it already; nothing was changed."
    return f"It stands in the ledger of {name} in {home} now."


def _colluding_words(grant: Grant) -> str | None:
    """What a second limit means beside the first, where there is one."""
    if grant.colluding is None:
        return None
    first, second = grant.everyone.loss.epsilon, grant.colluding.loss.epsilon
    if second > first:
        return (
            f"The limit against {grant.coalition} colluding never matters: they learn no more than everyone together, and "
            f"that limit, ε = {first:.4g}, is reached first."
        )
    return (
        f"Where members share the noise, {grant.coalition} colluding face more of it than everyone together does. Where "
        f"all noise is this member's own, both limits count the same, so that ε = {second:.4g} is what holds."
    )

"""Records of a run under a privacy mechanism: the member's own ledger beside its copy of the federation's log."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypeAlias

from hansa.agreement import Agreement
from hansa.canonical import canonical_json
from hansa.errors import BudgetRefusedError, ModelMismatchError, PrivacyParameterError, WireError
from hansa.fairness.agreed import run_charges
from hansa.gate.published import published_file
from hansa.ledger import VerifierKey, read_entry
from hansa.privacy.charges import EVALUATION, TRAINING, Charge
from hansa.privacy.crosscheck import EVERYWHERE, Finding, checked_epsilon
from hansa.privacy.events import Spend
from hansa.privacy.sampling import sampling_of
from hansa.protocol import JUDGED, MAX_SAID, News, Proposed, Word
from hansa.secagg import Manifest
from hansa_client.accounting import member_checks
from hansa_client.evaluation.admission import evaluation_number
from hansa_client.evaluation.approving import Approver
from hansa_client.ledger import MemberLedger
from hansa_client.mirror import Mirror
from hansa_client.protection import Protection

_LOG = logging.getLogger("hansa.node")

Charges: TypeAlias = dict[str | None, tuple[Charge, ...]]


class LedgerRecords:
    """See `hansa_client.records.Records`.

    Args:
        agreement: frozen, with a privacy mechanism, and signed in the ledger.
        ledger: the member's own log and its budget.
        mirror: of the federation's log.
        rng: where noise and sampling come from, for the record.
        nonce: makes fresh random text for this process; a checkpoint that holds it cannot be older than the process.
            `None` where the caller knows that the process goes on from where it was.
        federation_log: key of the log that the mirror copies; reservations name it, so that an auditor knows where to look.
        training_units: dataset that training is charged to; by default the ledger's own.
        evaluation_units: dataset of the units that are held out for evaluations, whose grant calls it disjoint from the
            other; evaluations are charged to it. Without one they are charged with training, and add to it.
        quick: in a bench, whether the one check is left out that takes seconds to load (`PrvAccountant`).

    Guarantees: nothing is reserved at an ε that another accountant contradicts. Nothing is trained before its whole run is reserved, and nothing leaves before it is on record; a member
        whose log is an older copy than what the federation has seen of it takes no part.
    """

    def __init__(
        self,
        agreement: Agreement,
        ledger: MemberLedger,
        mirror: Mirror,
        rng: str,
        nonce: Callable[[], str | None] = lambda: secrets.token_hex(16),
        federation_log: VerifierKey | None = None,
        *,
        training_units: str | None = None,
        evaluation_units: str | None = None,
        quick: bool = False,
    ) -> None:
        terms, noise = agreement.terms, agreement.require_frozen().noise_multiplier
        delta = terms.privacy.delta
        if noise is None or delta is None:
            raise PrivacyParameterError("an agreement without noise keeps no record of it")
        self._agreement_id, self._terms = agreement.agreement_id, terms
        self._ledger, self._mirror, self._rng = ledger, mirror, rng
        self._federation_log = federation_log
        self._protection, self._delta = Protection.of(terms.privacy), delta
        charged = run_charges(agreement, apart=evaluation_units is not None)
        self._charges: Charges = {training_units: charged.training}  # of a run that trains, by dataset
        if charged.evaluation:
            self._charges[evaluation_units] = charged.evaluation
        self._later: Charges = {  # of a run that evaluates what was published
            units: tuple(
                charge.with_count(1 + terms.secure_sum.retries)
                for charge in charges
                if charge.kind == EVALUATION
            )
            for units, charges in self._charges.items()
        }
        steps = {TRAINING: sampling_of(terms).events_in(terms.local_steps), EVALUATION: 1}
        self._spends = {
            charge.kind: Spend(charge.event, steps[charge.kind])
            for charge in (*charged.training, *charged.evaluation)
        }  # of one round
        self._approver = Approver(agreement, ledger.own.signer)
        self._nonce, self._quick = nonce(), quick
        self._seen: set[str] = (
            set()
        )  # runs that this process has seen from their reservation on, without a failure

    def hear(self, news: News | None) -> str | None:
        if news is None:
            return None  # nothing can be summed before a checkpoint shows what this member has said
        if news.start > self._mirror.size:
            return None  # it is told how far the mirror is, and asks again from there
        return self._mirror.news(news.entries, news.checkpoint).line

    def word(self, run: str) -> Word:  # noqa: ARG002  # what it owes the log may be of an earlier run
        return Word(self._mirror.size, self._mirror.outstanding()[:MAX_SAID], None, self._nonce)

    def admit(self, run: str, manifest: Manifest) -> None:
        self._mirror.verify_manifest_checkpoint(manifest.checkpoint, self._nonce)
        self._nonce = None  # shown once, this process has seen the log as it is
        begun, purpose = self._ledger.own.reserved(run) is None, _purpose_of(manifest)
        # a run whose first contribution here is an evaluation trains no more, or has never trained
        trains = purpose == TRAINING or self._ledger.reserves(run, TRAINING)
        whole = {
            units: charges for units, charges in (self._charges if trains else self._later).items() if charges
        }
        events = (events for charges in whole.values() for events in _events_of(charges))
        for finding in (found for one in events for found in _checked(one, self._delta, self._quick)):
            if begun:
                _LOG.warning("the ε of this run is not checked by %s: %s", finding.accountant, finding.reason)
        for units, charges in whole.items():
            self._ledger.reserve(
                self._agreement_id, run, charges, self._protection, self._federation_log, units
            )
            if begun:
                self._seen.add(
                    run
                )  # at once: if the next is refused, nothing was done, and the run can be closed free
        self._ledger.may_release(run, purpose, self._spends[purpose].count, manifest.round)

    def published(self, manifest: Manifest) -> None:
        self._mirror.verify_manifest_checkpoint(manifest.checkpoint, self._nonce)
        judged = manifest.artifacts[0] if manifest.artifacts else ""
        entries = (read_entry(data).entry for data in self._mirror.view.entries())
        shown = published_file(entries, self._agreement_id, judged)
        if shown is None or (shown.artifacts, shown.model_sha256) != (
            manifest.artifacts,
            manifest.model_sha256,
        ):
            raise ModelMismatchError(
                "a file is to be judged in a run of its own that the federation's log does not show as published"
            )
        number = evaluation_number(self._terms, manifest)
        if number != shown.evaluations + 1:
            raise WireError(
                f"evaluation {number} of a file is asked for, of which the log shows {shown.evaluations}"
            )
        # a sum that the log does not show may have been opened: this member's own releases count too
        spent = self._tables_since(shown.run)
        if spent >= self._terms.charged_evaluations:
            raise BudgetRefusedError(
                f"{spent} tables of this model were released, as many as the agreement allows",
                remedy="What was not agreed before training needs a new agreement.",
            )

    def _tables_since(self, published: str) -> int:
        """Tables that left this member in the run that published a file, and in runs that evaluate and do not train."""
        own = self._ledger.own
        runs = [
            run
            for run in self._ledger.runs()
            if run == published
            or (own.agreement_of(run) == self._agreement_id and not self._ledger.reserves(run, TRAINING))
        ]
        return sum(release.purpose == EVALUATION for run in runs for release in own.releases_of(run))

    def released(self, run: str, manifest: Manifest, manifest_sha256: str, y_sha256: str) -> None:
        self._ledger.release(
            self._agreement_id,
            run,
            round_number=manifest.round,
            step=manifest.step,
            purpose=_purpose_of(manifest),
            spend=self._spends[_purpose_of(manifest)],
            y_sha256=y_sha256,
            manifest_sha256=manifest_sha256,
            rng=self._rng,
        )

    def summed(self, run: str, number: int, vectors: Mapping[str, str]) -> None:
        self._mirror.require_released(run, number, vectors)

    def approve(self, run: str, proposed: Proposed) -> bytes:
        return self._approver.approve(run, proposed, tuple(self._mirror.view.entries()))

    def failed(self, run: str) -> None:
        self._seen.discard(run)

    def close(self, run: str) -> None:
        end = self._ledger.close if run in self._seen else self._ledger.forfeit
        end(self._agreement_id, run)
        self._ledger.checkpoint()


def _purpose_of(manifest: Manifest) -> str:
    return EVALUATION if manifest.purpose == JUDGED else TRAINING


def _events_of(charges: Sequence[Charge]) -> Iterator[tuple[tuple[bytes, int], ...]]:
    """What is charged against everyone, and where noise is shared against few."""
    against = {None, *(charge.coalition for charge in charges if charge.shared is not None)}
    for coalition in sorted(against, key=lambda c: c or 0):
        spends = [charge.against(coalition) for charge in charges]
        yield tuple((canonical_json(dict(spend.event)), spend.count) for spend in spends)


@cache
def _checked(spends: tuple[tuple[bytes, int], ...], delta: float, quick: bool) -> tuple[Finding, ...]:  # noqa: FBT001
    """The checks of a run's ε that could not be made; once in a process for the same events, here as canonical JSON.

    Raises:
        AccountantsDisagreeError: another accountant contradicts the one of record.
        AccountantFailedError: the accountant of record failed.
    """
    events = [Spend(json.loads(event), count) for event, count in spends]
    return checked_epsilon(events, delta, EVERYWHERE if quick else member_checks()).not_checked

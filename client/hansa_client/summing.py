"""A member's side of one federation run: the secure sum's machine, the model it derives, and what it puts in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import HansaError, TrainingError
from hansa.identity import Roster, Signer
from hansa.privacy.parts import PartSeeds
from hansa.protocol import (
    JUDGED,
    Answered,
    Derivation,
    read_sum_request,
    sum_reply,
    sum_terms,
    update_length,
)
from hansa.secagg import Manifest, MaskWorkers, Member, Seal, Store, answer
from hansa.secagg.bundle import bundle as make_bundle
from hansa.secagg.errors import ContributionWithheldError
from hansa.wire import Array, Message
from hansa_client.evaluation.admission import evaluation_number, files_of
from hansa_client.model import Derive, DerivedModel
from hansa_client.records import Records

Vector: TypeAlias = npt.NDArray[np.float64]
Contribution: TypeAlias = npt.NDArray[np.float64] | npt.NDArray[np.int64]

_LOG = logging.getLogger("hansa.node")


@dataclass(frozen=True)
class SumIdentity:
    """With what a member takes part in secure sums.

    Attributes:
        signer: its key, which the roster pins.
        roster: the keys in force.
        start: float64 [d], model 0.
        store: of the machine's state between phases; durable where the member is to survive a restart.
        seal: under a key kept outside the store.
        max_retries: how often in one run this member lets a step be summed again, whatever the agreement allows.
        derive: how models follow from each other; by default computed here.
        keep_model: whether the model is kept in the store too; otherwise a restarted member is sent every sum.
        workers: processes for large vectors.
    """

    signer: Signer
    roster: Roster
    start: Vector
    store: Store
    seal: Seal
    max_retries: int = 0
    derive: Derive | None = None
    keep_model: bool = False
    workers: MaskWorkers = field(default_factory=MaskWorkers)


class SumParty:
    """One run at one member; hands the machine its messages and makes its contribution.

    Args:
        agreement: frozen.
        run: its name.
        identity: of the member.
        records: reserves before anything is trained, and puts every vector on record before it leaves.
        train: makes the weighted update of a manifest's round, or the integers of a pooled step, from the model's weights,
            what adapts beside them, and the seeds of noise in parts.
            Whatever it raises reads as absence from outside.
        judge: makes the noisy table of an evaluation from the files of that many and their order; likewise.

    Guarantees: nothing that `train` raises or returns leaves, except masked, or as a code that follows from
        messages and public terms alone.
    """

    def __init__(
        self,
        agreement: Agreement,
        run: str,
        identity: SumIdentity,
        records: Records,
        train: Callable[[str, Manifest, Vector, Vector | None, PartSeeds | None], Contribution],
        judge: Callable[[str, int, Mapping[str, bytes], tuple[str, ...]], Contribution],
    ) -> None:
        self._run, self._records, self._train, self._judge = run, records, train, judge
        self._agreed = agreement.terms
        self._files: Mapping[str, Array] = {}  # that the request in hand has brought
        self._dimension = update_length(agreement)
        derive = identity.derive or Derivation(agreement, run)
        kept = identity.store if identity.keep_model else None
        terms = sum_terms(agreement, identity.roster)
        self._model = DerivedModel(agreement, terms, run, identity.start, derive, kept)
        self._tried = 0  # the last round for which a contribution was begun
        self._over = False
        self._machine = Member(
            terms,
            run,
            identity.signer,
            self,
            store=identity.store,
            seal=identity.seal,
            max_retries=min(identity.max_retries, agreement.terms.secure_sum.retries),
            workers=identity.workers,
        )

    def handle(self, request: Message) -> Message:
        """Answer one exchange.

        Raises:
            WireError: the request is malformed; nothing has changed.
        """
        asked = read_sum_request(request, self._dimension)
        cosignature = self._records.hear(asked.news)  # a log that contradicts itself gets no answer at all
        if self._machine.over:  # closed, or broken off for a reason that is nobody's business
            replies = make_bundle([])
        else:
            self._model.follow(asked.aggregates)
            self._files = asked.files
            replies = answer(self._machine, asked.bundle, self._refused)
            self._files = {}
        if self._over:
            self._machine.end()  # durable: this member takes no part in the run any more, whoever asks
        word = replace(self._records.word(self._run), cosignature=cosignature)
        return sum_reply(request, Answered(replies, self._model.round, word))

    def contribute(self, manifest: Manifest, seeds: PartSeeds | None = None) -> Contribution:
        """See `hansa.secagg.Contributor`."""
        files = dict[str, bytes]()
        if manifest.purpose == JUDGED:
            number = evaluation_number(self._agreed, manifest)
            if self._model.round:
                self._model.check_final(manifest, first=number == 1)
            else:  # a run of its own, after publication
                self._records.published(manifest)
            files = files_of(self._agreed, manifest, self._files)
        else:
            self._model.check(manifest)
        if manifest.round <= self._tried:
            raise ContributionWithheldError(f"the contribution to round {manifest.round} failed before")
        self._records.admit(self._run, manifest)
        self._tried = manifest.round
        try:
            if files:
                return self._judge(self._run, manifest.step, files, manifest.artifacts)
            return self._train(self._run, manifest, self._model.weights, self._model.adapted, seeds)
        except TrainingError:
            self._over = True
            raise
        except HansaError:
            raise
        except Exception as error:  # noqa: BLE001  # as the next lines say
            # whatever it was, it may speak of data: the member's own log says its type and place
            _LOG.exception(
                "%(member)s: the contribution to round %(round)d failed",
                {"member": self._machine.name, "round": manifest.round},
            )
            raise ContributionWithheldError(f"the contribution failed: {type(error).__name__}") from None

    def released(self, manifest: Manifest, manifest_sha256: str, y_sha256: str) -> None:
        """See `hansa.secagg.Contributor`."""
        self._records.released(self._run, manifest, manifest_sha256, y_sha256)

    def summed(self, number: int, vectors: Mapping[str, str]) -> None:
        """See `hansa.secagg.Contributor`."""
        self._records.summed(self._run, number, vectors)

    def end(self) -> None:
        """The run is over: its secrets are forgotten, and no round of it is answered again."""
        self._machine.end()
        self._model.forget()

    def _refused(self, error: HansaError) -> None:
        _LOG.warning(
            "%(member)s refuses: %(why)s",
            {"member": self._machine.name, "why": error.diagnostics(), "error": error},
        )
        if not error.travels:
            self._records.failed(self._run)

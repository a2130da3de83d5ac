"""What the coordinator logs of a finished sum: entries as values, of what the sum and its record say."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from hansa.canonical import sha256_hex
from hansa.errors import ServerStateError
from hansa.identity import Statement
from hansa.ledger import Adaptation, Aggregate, Evaluation, real
from hansa.privacy.charges import EVALUATION, TRAINING
from hansa.protocol import JUDGED
from hansa.secagg import SumOutcome
from hansa.server_step import ServerState


def aggregate_of(
    outcome: SumOutcome, at: str, agreement_id: str, released: Mapping[str, str], model_sha256: str | None
) -> Aggregate:
    """The sum itself.

    Args:
        outcome: of the secure sum.
        at: the time, as entries hold it.
        agreement_id: the agreement.
        released: SHA-256 of each survivor's vector, as its release says it.
        model_sha256: of the model that follows, where one does.
    """
    record = outcome.record
    receipts = (Statement.parse(line).value for line in record.receipts)
    received = {said["member"] for said in receipts if said["round"] == record.round}
    return Aggregate(
        at=at,
        agreement_id=agreement_id,
        run=record.run,
        purpose=EVALUATION if outcome.purpose == JUDGED else TRAINING,
        round=record.round,
        step=outcome.step,
        manifest_sha256=Statement.parse(record.manifest).sha256,
        record_sha256=sha256_hex(record.model_dump_json().encode()),
        aggregate_sha256=record.aggregate_sha256,
        released=dict(released),
        excluded=tuple(sorted(received.difference(outcome.survivors))),
        model_sha256=model_sha256,
    )


def evaluation_of(
    outcome: SumOutcome, at: str, agreement_id: str, number: int, files: tuple[str, ...]
) -> Evaluation:
    """The noisy table of an evaluation.

    Args:
        outcome: of the secure sum.
        at: the time, as entries hold it.
        agreement_id: the agreement.
        number: which of the evaluations that the agreement allows.
        files: SHA-256 of the file that was judged, and of the one that it was compared with, if any.
    """
    record = outcome.record
    return Evaluation(
        at=at,
        agreement_id=agreement_id,
        run=record.run,
        number=number,
        artifact_sha256=files[0],
        reference_sha256=files[1] if len(files) > 1 else None,
        round=record.round,
        aggregate_sha256=record.aggregate_sha256,
        table=b64encode(outcome.total.astype("<i4").tobytes()).decode("ascii"),
    )


def require_counted(outcome: SumOutcome, state: ServerState) -> tuple[float, ...]:
    """What has adapted to a sum that counts something beside gradients.

    Raises:
        ServerStateError: nothing has.
    """
    if state.adapted is None or len(outcome.total) <= len(state.weights):
        raise ServerStateError("a sum that counts nothing beside gradients has nothing adapted to it")
    return tuple(state.adapted.tolist())


def adaptation_of(outcome: SumOutcome, at: str, agreement_id: str, state: ServerState) -> Adaptation:
    """What adapted to a round of training.

    Args:
        outcome: of the secure sum; its last coordinates are what was counted.
        at: the time, as entries hold it.
        agreement_id: the agreement.
        state: that follows, with adapted quantities.

    Raises:
        ServerStateError: nothing has adapted, or the sum counts nothing.
    """
    adapted = require_counted(outcome, state)
    record, length = outcome.record, len(state.weights)
    return Adaptation(
        at=at,
        agreement_id=agreement_id,
        run=record.run,
        round=record.round,
        step=outcome.step,
        aggregate_sha256=record.aggregate_sha256,
        weights_sha256=state.weights_sha256,
        counted=b64encode(outcome.total[length:].astype("<i4").tobytes()).decode("ascii"),
        adapted=tuple(map(real, adapted)),
    )

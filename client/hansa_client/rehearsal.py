"""A rehearsal: one round's work on the member's own data, with nothing sent and nothing spent.

The real trainer takes the round's steps on the real data, the update is encoded in the ring and masked against keys that
are made here and forgotten. What is told stays with the member: how long it took, how much memory, and how many bytes
would have left.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass

import numpy as np

from hansa.agreement import Agreement
from hansa.privacy.randomness import SecretRandomness
from hansa.protocol import public_weights, rotation_of, starting_state, update_encoding
from hansa_client.accepted import Vector
from hansa_client.assembly import trainer_of
from hansa_client.node_file import NodeHome

_ENVELOPE_BYTES = 700  # of one dealer's parcel for one holder, and of the signed statements about it


@dataclass(frozen=True)
class Rehearsal:
    """What a round would cost.

    Attributes:
        parameters: of the model.
        prepare_s: reading data and building the model, once per process.
        train_s: the round's steps.
        encode_s: into the ring.
        upload_bytes: that would leave in a round, about: the masked vector and the secure sum's messages.
        peak_memory_bytes: of this process.
        clipped: entries that the public bound cut, of all; more than a few mean that the agreement's bound is too small. Under
            ``distributed`` noise the trainer cuts before the noise and tells the member's own log.
    """

    parameters: int
    prepare_s: float
    train_s: float
    encode_s: float
    upload_bytes: int
    peak_memory_bytes: int
    clipped: int

    def as_dict(self) -> dict[str, object]:
        """As plain JSON values."""
        return asdict(self)


def rehearse(home: NodeHome, agreement: Agreement, model: Vector) -> Rehearsal:
    """Do one round's work and throw it away.

    Args:
        home: of the node.
        agreement: frozen.
        model: float64 [d], model 0.

    Guarantees: nothing is written, sent or charged. What is trained here leaves in no form; only its sizes and times are
        told, and to the member alone.

    Raises:
        HansaError: data, model or device cannot be used.
    """
    started = time.monotonic()
    trainer = trainer_of(home, agreement)
    prepared = time.monotonic()
    weight = public_weights(agreement.terms)[home.settings.name]
    rotation = rotation_of(agreement, "rehearsal", 1)  # of no run
    made = trainer.train(model, SecretRandomness(), rotation, starting_state(agreement, model).adapted)
    pooled = made.dtype == np.int64  # a noisy clipped sum, cut to its clamp already: nothing may scale it
    update = made if pooled else np.multiply(weight, made, dtype=np.float64)
    trained = time.monotonic()
    encoding = update_encoding(agreement)
    encoded = encoding.encode(update)
    ended = time.monotonic()
    members = len(agreement.terms.members)
    return Rehearsal(
        parameters=len(model),
        prepare_s=prepared - started,
        train_s=trained - prepared,
        encode_s=ended - trained,
        upload_bytes=encoded.nbytes + members * _ENVELOPE_BYTES,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        clipped=0 if pooled else int(np.count_nonzero(np.abs(update) > encoding.clip)),
    )

"""Writes tests/vectors/ledger/log.json: PYTHONPATH=tests python tests/vectors/ledger_log.py

Run it only when a format changes on purpose; tests/vectors/test_ledger_vectors.py then says what changed.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from hansa.ledger import InMemoryWitness, Witness
from support.ledgers import (
    LOG_SIGNER,
    OFFICERS,
    SIGNERS,
    WITNESS_SIGNERS,
    log_of,
    one_of_each,
    release,
    signed,
)

FILE = Path(__file__).parent / "ledger" / "log.json"
AT = 1_772_366_400


def log_on_paper() -> dict[str, Any]:
    """A log with an entry of each type and one release more, cosigned by three of four witnesses."""
    entries = [signed(entry).encoded for entry in one_of_each().values()]
    log = log_of(entries)
    log.append([signed(release(2)).encoded])
    note = log.checkpoint("nonce 000102030405060708090a0b0c0d0e0f")
    for step, signer in enumerate(WITNESS_SIGNERS[:3]):
        witness = Witness(signer, [log.key], InMemoryWitness())
        note = log.add_cosignature(note, witness.cosign(note, old_size=0, at=AT + step), witness.key)
    return {
        "log_key": LOG_SIGNER.key.text,
        "witness_keys": [signer.key.text for signer in WITNESS_SIGNERS],
        "roster": {name: signer.public_key for name, signer in SIGNERS.items()},
        "officers": {name: signer.public_key for name, signer in OFFICERS.items()},
        "entries": [data.decode() for data in log.entries()],
        "roots": [log.root_at(size).hex() for size in range(log.size + 1)],
        "checkpoint": note.encoded,
        "inclusion": [log.proof(index, note).encoded for index in range(log.size)],
        "consistency": [
            {
                "size1": size,
                "size2": log.size,
                "proof": [b64encode(h).decode() for h in log.prove_consistency(size, log.size)],
            }
            for size in range(1, log.size + 1)
        ],
    }


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(log_on_paper(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

"""A process that is killed while it writes: what it was told is durable is there, and never half of a batch."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hansa.ledger import Log, SqliteLogStore
from hansa.ledger.errors import LogStoreError
from support.ledgers import LOG_SIGNER

BATCH = 50
WRITER = """
import sys
from pathlib import Path
from hansa.ledger import Log, NoteSigner, SqliteLogStore
log = Log(SqliteLogStore(Path(sys.argv[1])), NoteSigner.parse(sys.argv[2]))
while True:
    log.append([b"%d " % (log.size + i) * 100 for i in range(int(sys.argv[3]))])
    if log.size % 500 == 0:
        log.checkpoint()
    print(log.size, flush=True)
"""


@pytest.mark.parametrize("wait_s", [0.0, 0.01, 0.05, 0.2])
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path, wait_s: float) -> None:
    path = tmp_path / "log.sqlite"
    SqliteLogStore.create(path).close()
    for _ in range(3):
        arguments = [sys.executable, "-c", WRITER, str(path), LOG_SIGNER.text, str(BATCH)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = int(writer.stdout.readline())
            with pytest.raises(LogStoreError, match="in use"):
                SqliteLogStore(path)
            time.sleep(wait_s)
            writer.send_signal(signal.SIGKILL)
            told = int((writer.stdout.read().split() or [str(told)])[-1])
        store = SqliteLogStore(path)
        log = Log(store, LOG_SIGNER)
        assert log.size >= told
        assert log.size % BATCH == 0
        assert log.check().size == log.size
        assert [data.split()[0] for data in log.entries(log.size - BATCH)] == [
            b"%d" % index for index in range(log.size - BATCH, log.size)
        ]
        store.close()

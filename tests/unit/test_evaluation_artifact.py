"""A member scores the file that would ship, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.artifact import confined
from hansa.artifact.errors import ConfinedRunError
from hansa.canonical import sha256_hex
from hansa.errors import ModelMismatchError
from hansa_client.data import Dataset
from hansa_client.evaluation.artifact import score_artifact
from hansa_server.publication.compress import DynamicInt8, ExportOnnx, compress
from support.packages import candidate


def records(rows: int = 5) -> Dataset:
    table = np.random.default_rng(0).uniform(-1, 1, (rows, 6)).astype(np.float32)
    return Dataset(
        inputs={"table": table},
        labels=np.zeros(rows, np.int64),
        units=np.arange(rows),
        unit_ids=tuple(map(str, range(rows))),
        groups={},
    )


@pytest.fixture(scope="module")
def model() -> bytes:
    done = compress(candidate(), [ExportOnnx(), DynamicInt8()])
    assert done.onnx is not None
    return done.onnx


def test_scores_are_those_of_the_file(model):
    data = records()
    found = score_artifact(model, sha256_hex(model), data, classes=2)
    wanted = candidate().logits({"table": data.inputs["table"]})
    assert np.abs(found - wanted).max() < 0.1


def test_another_file_is_not_evaluated(model, monkeypatch):
    monkeypatch.setattr(confined, "_run", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(ModelMismatchError):
        score_artifact(model + b"\x00", sha256_hex(model), records(), classes=2)


def test_a_member_may_insist_on_every_wall_and_nothing_runs_without(model, monkeypatch, tmp_path):
    worker = Path(confined._WORKER).read_text()
    assert worker.count("if not _close_files():") == 1
    lacking = tmp_path / "worker.py"  # on a machine without Landlock, whose runtime must not be reached
    lacking.write_text(
        worker.replace("if not _close_files():", "if True:").replace(
            "    session = ", '    raise RuntimeError("the file was run")\n    session = '
        )
    )
    monkeypatch.setattr(confined, "_WORKER", lacking)
    with pytest.raises(ConfinedRunError, match="was not run: the system has no Landlock"):
        score_artifact(model, sha256_hex(model), records(), classes=2, allow_unprotected=False)
    with pytest.raises(ConfinedRunError, match="the file was run"):
        score_artifact(model, sha256_hex(model), records(), classes=2)

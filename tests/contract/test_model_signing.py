"""What Hansa signs, OpenSSF's own program verifies; what that program would sign otherwise, Hansa refuses."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from hansa.artifact.errors import PackageError
from hansa.artifact.signing import SIGNATURE, public_pem, read_signature, write_signature
from hansa.identity import Signer

pytest.importorskip("model_signing", reason="model-signing is not installed (extra: dev)")


@pytest.fixture
def folder(tmp_path) -> Path:
    found = tmp_path / "model"
    found.mkdir()
    for name, text in (("model.onnx", "weights"), ("MODEL_CARD.md", "card ε"), ("empty.json", "")):
        (found / name).write_text(text, encoding="utf-8")
    return found


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != SIGNATURE
    }


def reference(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *arguments], capture_output=True, text=True, check=False
    )


def test_the_reference_verifies_what_is_signed_here_and_finds_a_change(folder, tmp_path):
    signer = Signer.generate("coordinator")
    (folder / SIGNATURE).write_bytes(write_signature("model", hashes(folder), signer))
    (tmp_path / "key.pem").write_bytes(public_pem(signer.public_key))
    command = (
        "verify", "key", str(folder), "--signature", str(folder / SIGNATURE), "--public_key", str(tmp_path / "key.pem"),
    )  # fmt: skip
    ran = reference(*command)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    (folder / "model.onnx").write_text("other", encoding="utf-8")
    assert reference(*command).returncode != 0


def test_a_signature_of_the_reference_covers_the_same_files_in_another_form(folder, tmp_path):
    signer = Signer.generate("coordinator")
    signer.save(tmp_path / "private.pem")
    ran = reference(
        "sign", "key", str(folder), "--signature", str(folder / SIGNATURE), "--private_key", str(tmp_path / "private.pem"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(PackageError, match="does not count") as caught:
        read_signature((folder / SIGNATURE).read_bytes(), signer.public_key)
    assert "one form" in caught.value.diagnostics()
    ours = write_signature("model", hashes(folder), signer)
    assert read_signature(ours, signer.public_key) == ("model", hashes(folder))

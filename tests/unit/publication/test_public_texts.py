"""Public texts reach the steps that read them from where people name them, and their absence is told before a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.agreement.publication import Publication
from hansa.agreement.publication_rules import reads_public_texts
from hansa.agreement.terms import Data, NumberFeature, TextFeature
from hansa.artifact.errors import StepError
from hansa.errors import UsageError
from hansa_server.home import CoordinatorFile, CoordinatorHome, PublicTexts
from hansa_server.publication.compress import PublicCorpus
from hansa_simulations import simulate
from support.published_runs import TERMS, agreement_of

TEXTS = Data(label="y", features=(TextFeature(kind="text", name="note"),))
TABLE = Data(label="y", features=(NumberFeature(kind="number", name="age", range=(0.0, 1.0)),))


@pytest.mark.parametrize(
    ("steps", "data", "reads"),
    [
        (("distil", "onnx"), TEXTS, True),
        (("vocabulary", "onnx"), TEXTS, True),
        (("prune", "onnx", "int8"), TEXTS, False),
        (("distil", "onnx"), TABLE, False),  # rows generated from the schema
    ],
)
def test_which_steps_read_texts(steps: tuple[str, ...], data: Data, reads: bool) -> None:
    assert reads_public_texts(Publication(compress=steps), data) is reads


def test_a_corpus_is_a_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "public.txt"
    path.write_text("A fever.\n\n  A cough, and größer.  \n", encoding="utf-8")
    read = PublicCorpus.read(path, "a textbook")
    assert read == PublicCorpus("a textbook", ("A fever.", "A cough, and größer."))


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_file_without_texts_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "public.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StepError, match=r"public texts in|needs texts"):
        PublicCorpus.read(path, "a textbook")


def test_a_simulation_that_would_lack_them_does_not_begin() -> None:
    publication = TERMS.publication.model_copy(update={"compress": ("vocabulary", "onnx", "int8")})
    with pytest.raises(UsageError, match="read public texts, and none are named"):
        simulate(agreement_of(data=TEXTS, publication=publication))


def test_a_coordinator_that_lacks_them_is_told_at_its_start(tmp_path: Path) -> None:
    publication = TERMS.publication.model_copy(update={"compress": ("distil", "onnx", "int8")})
    terms = agreement_of(data=TEXTS, publication=publication).terms
    home = CoordinatorHome(tmp_path, CoordinatorFile(listen="127.0.0.1:1"))
    assert [one.place for one in home.lacking_texts(terms)] == ["public_texts"]
    named = PublicTexts(file="public.txt", source="a textbook")
    there = CoordinatorHome(tmp_path, CoordinatorFile(listen="127.0.0.1:1", public_texts=named))
    assert [one.place for one in there.lacking_texts(terms)] == ["public_texts.file"]
    (tmp_path / "public.txt").write_text("A fever.\n")
    assert not list(there.lacking_texts(terms))

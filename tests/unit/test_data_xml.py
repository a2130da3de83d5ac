"""XML records from files, folders and archives."""

from __future__ import annotations

import io
import tarfile

import pytest

from hansa.agreement.local import Source
from hansa.errors import AgreementError, DataError, DataSourceError
from hansa_client.data import read_folders, read_records
from support.schemas import TEXT, schema_agreement, written

TERMS = schema_agreement(TEXT).terms
SOURCE = Source(format="xml", record="Pair")
COLUMNS = {"note": "Answer", "outcome": "Question/@kind"}


def document(*pairs: tuple[str, str | None], focus: str = "f") -> str:
    inner = "".join(
        f'<Pair id="{i}"><Question kind="{kind}">q</Question>'
        + ("" if answer is None else f"<Answer>{answer}</Answer>")
        + "</Pair>"
        for i, (kind, answer) in enumerate(pairs)
    )
    return f'<?xml version="1.0"?><Doc id="d1"><Focus>{focus}</Focus><Pairs>{inner}</Pairs></Doc>'


def values(records, name):
    cells = records.columns[name]
    return [None if missing else value for value, missing in zip(cells.values, cells.missing, strict=True)]


def archive(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


FILES = {
    "two/b.xml": document(("no", "from two b")),
    "one/b.xml": document(("no", "second"), ("yes", "third")),
    "one/a.xml": document(("yes", "first")),
    "one/readme.txt": "not XML",
    "onemore/a.xml": document(("yes", "of another folder")),
}


class TestPaths:
    def test_text_and_attributes(self, tmp_path):
        file = written(tmp_path, "a.xml", document(("no", "one <b>bold</b>\n   word"), ("yes", None)))
        records = read_records(file, TERMS, SOURCE, COLUMNS)
        assert values(records, "note") == ["one bold word", None]
        assert values(records, "outcome") == ["no", "yes"]

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("@id", "0"),
            ("/Focus", "f"),
            ("/@id", "d1"),
            (".", "q a"),
            ("/Pairs/Pair/@id", "0"),
            ("./Question", "q"),
        ],
    )
    def test_every_kind_of_path(self, tmp_path, path, expected):
        file = written(tmp_path, "a.xml", document(("no", " a")).replace("</Question>", "</Question> "))
        records = read_records(file, TERMS, SOURCE, {**COLUMNS, "note": path})
        assert values(records, "note") == [expected]

    def test_a_path_that_no_record_has_is_a_missing_column(self, tmp_path):
        file = written(tmp_path, "a.xml", document(("no", "a")))
        with pytest.raises(DataError) as caught:
            read_records(file, TERMS, SOURCE, {**COLUMNS, "note": "Reply"})
        assert "no column 'Reply', which holds 'note'" in str(caught.value.problems[0])

    def test_a_namespace(self, tmp_path):
        text = document(("no", "a")).replace("<Doc", '<Doc xmlns="urn:x/y"')
        source = Source(format="xml", record="{urn:x/y}Pair")
        columns = {"note": "{urn:x/y}Answer", "outcome": "{urn:x/y}Question/@kind"}
        records = read_records(written(tmp_path, "a.xml", text), TERMS, source, columns)
        assert values(records, "note") == ["a"]

    @pytest.mark.parametrize("path", ["Answer[", "Answer[1]", "/", "a//b", "@", "a@b@c", "a b"])
    def test_a_broken_path(self, tmp_path, path):
        file = written(tmp_path, "a.xml", document(("no", "a")))
        with pytest.raises(DataSourceError, match="not a path"):
            read_records(file, TERMS, SOURCE, {**COLUMNS, "note": path})

    def test_without_a_record_element(self, tmp_path):
        with pytest.raises(AgreementError) as caught:
            read_records(written(tmp_path, "a.xml", "<a/>"), TERMS, Source(format="xml"), COLUMNS)
        assert caught.value.problems[0].place == "simulation.source.record"

    def test_no_records(self, tmp_path):
        with pytest.raises(DataError) as caught:
            read_records(written(tmp_path, "a.xml", document()), TERMS, SOURCE, COLUMNS)
        assert "no rows" in str(caught.value.problems[0])


class TestFoldersAndArchives:
    def folder(self, tmp_path):
        for name, text in FILES.items():
            written(tmp_path / "data", name, text)
        return tmp_path / "data"

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
    def test_an_archive_and_its_folder_give_the_same_records(self, tmp_path, mode):
        packed = archive(tmp_path / "data.tar", FILES, mode)
        folders = {"a": "one", "b": "two"}
        unpacked = read_folders(self.folder(tmp_path), folders, TERMS, SOURCE, COLUMNS)
        streamed = read_folders(packed, folders, TERMS, SOURCE, COLUMNS)
        assert values(streamed["a"], "note") == ["first", "second", "third"]
        assert values(streamed["b"], "note") == ["from two b"]
        for member in folders:
            assert values(streamed[member], "note") == values(unpacked[member], "note")
            assert values(streamed[member], "outcome") == values(unpacked[member], "outcome")

    def test_a_whole_archive(self, tmp_path):
        records = read_records(archive(tmp_path / "d.tgz", FILES), TERMS, SOURCE, COLUMNS)
        assert len(records) == 5

    def test_names_with_a_leading_dot_are_the_same(self, tmp_path):
        packed = archive(tmp_path / "d.tar", {f"./{name}": text for name, text in FILES.items()}, "w")
        records = read_folders(packed, {"a": "one"}, TERMS, SOURCE, COLUMNS)["a"]
        assert values(records, "note") == ["first", "second", "third"]

    def test_a_folder_that_is_not_there(self, tmp_path):
        packed = archive(tmp_path / "d.tar", FILES, "w")
        with pytest.raises(DataError) as caught:
            read_folders(packed, {"a": "three"}, TERMS, SOURCE, COLUMNS)
        assert "no rows" in str(caught.value.problems[0])

    def test_every_broken_document_is_named(self, tmp_path):
        broken = {**FILES, "one/x.xml": "<Doc><Pair>", "two/y.xml": "text"}
        with pytest.raises(DataSourceError, match="2 documents cannot be read") as caught:
            read_records(archive(tmp_path / "d.tar", broken, "w"), TERMS, SOURCE, COLUMNS)
        assert "one/x.xml" in caught.value.cause
        assert "two/y.xml" in caught.value.cause

    def test_broken_documents_of_other_members_do_not_matter(self, tmp_path):
        packed = archive(tmp_path / "d.tar", {**FILES, "two/y.xml": "text"}, "w")
        assert len(read_folders(packed, {"a": "one"}, TERMS, SOURCE, COLUMNS)["a"]) == 3

    @pytest.mark.parametrize("keep", [10, 200])
    def test_a_truncated_archive(self, tmp_path, keep):
        packed = archive(tmp_path / "d.tar.gz", FILES)
        packed.write_bytes(packed.read_bytes()[:keep])
        with pytest.raises(DataSourceError, match="truncated or not a tar archive"):
            read_records(packed, TERMS, SOURCE, COLUMNS)

    def test_a_file_of_another_kind(self, tmp_path):
        with pytest.raises(DataSourceError, match="not a tar archive"):
            read_records(written(tmp_path, "a.csv", "a,b\n"), TERMS, SOURCE, COLUMNS)

    def test_a_plain_archive_cut_between_two_documents(self, tmp_path):
        packed = archive(tmp_path / "d.tar", FILES, "w")
        packed.write_bytes(packed.read_bytes()[:2048])
        with pytest.raises(DataSourceError, match="lacks the end"):
            read_records(packed, TERMS, SOURCE, COLUMNS)

"""Files and loaders that try to make a member's node do something other than read records."""

from __future__ import annotations

import io
import sys
import tarfile
from importlib.metadata import EntryPoint

import pytest

from hansa.agreement.local import Source
from hansa.canonical import sha256_hex
from hansa.errors import DataError, DataSourceError
from hansa_client.data import custom, read_records
from support.schemas import TEXT, schema_agreement, written

TERMS = schema_agreement(TEXT).terms
XML = Source(format="xml", record="Pair")
COLUMNS = {"note": "Answer", "outcome": "@kind"}
BODY = '<Doc><Pair kind="no"><Answer>&a;</Answer></Pair></Doc>'


class TestEntities:
    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE Doc [<!ENTITY a "b">]>',
            '<!DOCTYPE Doc [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
            '<!DOCTYPE Doc SYSTEM "http://127.0.0.1:9/x.dtd">',
            '<!DOCTYPE Doc [<!ENTITY % p SYSTEM "file:///etc/hostname"> %p;]>',
        ],
        ids=["internal", "external-file", "external-subset", "parameter"],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_a_doctype_is_refused_in_any_encoding(self, tmp_path, doctype, encoding):
        file = tmp_path / "a.xml"
        file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{doctype}{BODY}'.encode(encoding))
        with pytest.raises(DataSourceError, match="DOCTYPE"):
            read_records(file, TERMS, XML, COLUMNS)

    def test_a_billion_laughs_are_not_begun(self, tmp_path):
        entities = ['<!ENTITY a0 "ha">', *(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 30))]
        text = f"<!DOCTYPE Doc [{''.join(entities)}]>{BODY.replace('&a;', '&a29;')}"
        with pytest.raises(DataSourceError, match="DOCTYPE"):
            read_records(written(tmp_path, "a.xml", text), TERMS, XML, COLUMNS)

    def test_the_five_predefined_entities_are_read(self, tmp_path):
        file = written(tmp_path, "a.xml", BODY.replace("&a;", "1 &lt; 2 &amp; 3"))
        assert read_records(file, TERMS, XML, COLUMNS).columns["note"].values.tolist() == ["1 < 2 & 3"]


def test_an_archive_writes_nothing_wherever_its_names_point(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    text = BODY.replace("&a;", "x").encode()
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        for name in ("../escaped.xml", str(tmp_path / "absolute.xml"), "plain.xml"):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        link = tarfile.TarInfo("link.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    records = read_records(tmp_path / "d.tar", TERMS, XML, COLUMNS)
    assert len(records) == 3
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d.tar", "inside"]


LOADER = """
import pathlib
pathlib.Path({mark!r}).write_text("ran")
def load(path):
    return {{"note": ["a", None], "outcome": ["no", 1]}}
def ragged(path):
    return {{"note": ["a"], "outcome": []}}
def fails(path):
    raise KeyError("gone")
"""


@pytest.fixture
def loader(tmp_path, monkeypatch):
    """A loader in a package whose import leaves a mark, registered under `own`; its source hash and the mark."""
    mark = tmp_path / "mark"
    package = tmp_path / "src" / "member_loaders"
    parent = written(
        package, "__init__.py", f"import pathlib\npathlib.Path({str(mark)!r}).write_text('ran')\n"
    )
    source = written(package, "notes.py", LOADER.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(parent.parent.parent))
    points = [
        EntryPoint(name, f"member_loaders.notes:{attribute}", custom.GROUP)
        for name, attribute in (("own", "load"), ("ragged", "ragged"), ("fails", "fails"))
    ]
    points.append(EntryPoint("builtin", "itertools:chain", custom.GROUP))
    points.append(EntryPoint("nowhere", "member_loaders.absent:load", custom.GROUP))
    monkeypatch.setattr(custom, "entry_points", lambda *, group: points if group == custom.GROUP else [])
    yield sha256_hex(source.read_bytes()), mark
    for name in [name for name in sys.modules if name.startswith("member_loaders")]:
        del sys.modules[name]


class TestCustomLoaders:
    def source(self, name, code_sha256):
        return Source(format="custom", loader=name, code_sha256=code_sha256)

    def test_the_agreed_source_runs(self, tmp_path, loader):
        digest, mark = loader
        records = read_records(tmp_path, TERMS, self.source("own", digest), {})
        assert records.columns["outcome"].values.tolist() == ["no", "1"]
        assert records.columns["note"].missing.tolist() == [False, True]
        assert mark.exists()

    @pytest.mark.parametrize("named", [None, "0" * 64])
    def test_another_source_does_not_run_at_all(self, tmp_path, loader, named):
        digest, mark = loader
        with pytest.raises(DataSourceError, match=digest):
            read_records(tmp_path, TERMS, self.source("own", named), {})
        assert not mark.exists()

    @pytest.mark.parametrize("name", ["builtin", "nowhere"])
    def test_a_loader_without_a_source_file_is_refused(self, tmp_path, loader, name):
        with pytest.raises(DataSourceError, match="no source file"):
            read_records(tmp_path, TERMS, self.source(name, "0" * 64), {})

    def test_an_unknown_loader_is_told_with_those_installed(self, tmp_path, loader):
        with pytest.raises(DataSourceError, match="'other'") as caught:
            read_records(tmp_path, TERMS, self.source("other", loader[0]), {})
        assert "own" in caught.value.what_to_do

    def test_a_source_without_a_loader(self, tmp_path):
        with pytest.raises(DataSourceError, match="needs a loader"):
            read_records(tmp_path, TERMS, Source(format="custom"), {})

    def test_a_loader_that_fails_is_named_with_its_error(self, tmp_path, loader):
        with pytest.raises(DataSourceError, match=r"'fails' failed on .*KeyError"):
            read_records(tmp_path, TERMS, self.source("fails", loader[0]), {})

    def test_columns_of_different_lengths(self, tmp_path, loader):
        with pytest.raises(DataSourceError, match="different lengths"):
            read_records(tmp_path, TERMS, self.source("ragged", loader[0]), {})

    def test_a_missing_column_of_a_loader(self, tmp_path, loader):
        with pytest.raises(DataError, match="do not fit"):
            read_records(tmp_path, TERMS, self.source("own", loader[0]), {"note": "text"})

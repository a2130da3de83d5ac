"""The guide to identities: its commands exist, with the options that it shows, and what it says of files is so."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from hansa.cli.app import ROOT, load
from hansa.cli.commands import COMMANDS, Table
from support.cli import hansa
from support.identities import mode

PAGE = Path(__file__).resolve().parents[2] / "docs" / "identities.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line[2:] for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("$ hansa ")]
INLINE = [text for text in re.findall(r"`(hansa [^`]+)`", TEXT) if len(text.split()) > 2]
QUOTED = [*LINES, *INLINE]


def test_the_page_shows_commands():
    assert len(LINES) >= 9
    assert len(INLINE) >= 5


@pytest.mark.parametrize("line", QUOTED)
def test_every_command_and_option_exists(line):
    _, group, name, *rest = shlex.split(line)
    table = COMMANDS[group]
    assert isinstance(table, Table)
    command = load(name, table.rows[name])
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options
    assert isinstance(ROOT.commands[group], click.Group)


@pytest.mark.parametrize("line", [line for line in QUOTED if " amend " in line or line in LINES])
def test_nothing_that_a_command_needs_is_left_out(line):
    _, group, name, *rest = shlex.split(line)
    needed = [
        one for one in load(name, COMMANDS[group].rows[name]).params if one.required and one.opts[0][0] == "-"
    ]
    assert [one.opts for one in needed if not {*one.opts} & {*rest}] == []


def test_the_grant_of_the_page_fits_the_agreement_of_the_page(tmp_path, monkeypatch):
    """Who follows the page ends where it says, with the numbers that it says."""
    monkeypatch.chdir(tmp_path)
    assert hansa("node", "officer", "north", "--out", "officer").status == 0
    shutil.move(tmp_path / "officer" / "north.officer.key", tmp_path)
    card = tmp_path / "officer" / "north.officer.pub"
    assert hansa("node", "init", "north", "--home", "north", "--officer", card).status == 0
    assert hansa("agreement", "new", "readmission.frozen.toml").status == 0
    steps = [line for line in LINES if " grant " in line or "--forecast" in line]
    assert len(steps) == 3
    *_, forecast = (hansa(*shlex.split(line)[1:]) for line in steps)
    assert forecast.status == 0, forecast
    said = re.search(r"rounds fit \(.*\n.*which fits\.", forecast.stdout)
    assert said is not None
    assert said[0] in TEXT


def test_the_table_of_files_is_what_a_member_gets(tmp_path):
    rows = re.findall(r"^\| `([^`]+)` \| (private|public)(?:, (0\d{3}))?", TEXT, re.MULTILINE)
    assert hansa("node", "officer", "north", "--out", tmp_path / "officer").status == 0
    card = tmp_path / "officer" / "north.officer.pub"
    assert hansa("node", "init", "north", "--home", tmp_path / "north", "--officer", card).status == 0
    made = {path.name: mode(path) for path in (tmp_path / "north").iterdir()}
    assert {name.rstrip("/") for name, _, _ in rows} == set(made)
    for name, kind, bits in rows:
        shown = made[name.rstrip("/")]
        assert shown == int(bits, 8) if bits else shown & 0o044, (name, kind)
        assert (kind == "private") == (not shown & 0o077)


def test_the_links_of_the_page_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) >= 3
    assert [link for link in links if not (PAGE.parent / link).exists()] == []

"""What is counted of a league: by the run's process into the register, and from there to the table and a Prometheus."""

from __future__ import annotations

import io
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from hansa.cli.watching import Seen, watch
from hansa.errors import PortError, UsageError
from hansa.identity import Signer, Statement
from hansa.observing import about_request
from hansa.wire import Message
from hansa_client.desk import Answer
from hansa_client.node_file import read_home
from hansa_server.observed import ObservedMembers
from hansa_server.runs import Runs
from support.cli import hansa


def asked(kind: str = "secagg.manifest", number: int = 3) -> Message:
    statement = Statement.sign(Signer.generate("coordinator"), kind, {"round": number})
    prepared = Statement.sign(Signer.generate("coordinator"), "secagg.keys-request", {"round": number + 1})
    parts = [
        {"kind": "secagg.keys-request", "body": {"signed": prepared.line}, "arrays": []},
        {"kind": kind, "body": {"signed": statement.line}, "arrays": []},
    ]
    return Message("sum", {"agreement_id": "a" * 64, "run": "r", "round": 9, "bundle": {"parts": parts}})


class Carrier:
    """Answers for some; takes 2 seconds by its own clock."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.now = answers, 0.0

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        self.now += 2.0
        return {name: Message("reply", {"to": name}) for name in requests if name in self.answers}


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def exchanged(runs: Runs, times: int = 1) -> str:
    run, carrier = runs.begin("a" * 64, 5), Carrier("north")
    league = ObservedMembers(carrier, runs, run, "a" * 64, lambda: {"north", "south"}, lambda: carrier.now)
    for _ in range(times):
        replies = league.exchange(dict.fromkeys(("north", "south", "west"), asked()), 9.0)
        assert set(replies) == {"north"}  # a watcher changes nothing
    return run


@pytest.mark.parametrize(
    ("request_", "kind", "phase", "number"),
    [
        (asked(), "sum", "masked", 3),
        (asked("secagg.unmask-request", 8), "sum", "unmask", 8),
        (Message("close", {"round": 4}), "close", "close", None),
        (Message("x" * 99, {}), "other", "other", None),
        (Message("sum", {"bundle": {"parts": [{"kind": ["sum"], "body": 3}, 7]}}), "sum", "sum", None),
        (
            Message(
                "sum", {"bundle": {"parts": [{"kind": "secagg.keys-request", "body": {"signed": "no"}}]}}
            ),
            "sum",
            "keys",
            None,
        ),
    ],
)
def test_what_a_request_is_about_is_one_of_few_words(request_, kind, phase, number) -> None:
    found = about_request(request_)
    assert (found.kind, found.phase, found.round) == (kind, phase, number)


def test_exchanges_are_counted_by_phase_with_who_was_present_late_and_absent(runs: Runs) -> None:
    run = exchanged(runs, times=3)
    watched = runs.watched(run)
    assert [(one.phase, one.count, one.seconds) for one in watched.phases] == [("masked", 3, 6.0)]
    assert watched.phases[0].sent_bytes > watched.phases[0].received_bytes > 0
    assert watched.attendance == {"north": "present", "south": "late", "west": "absent"}
    assert runs.one(run).phase == "masked"
    assert Runs(runs.folder("")).watched(run) == watched  # another process reads the same


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")
    }


def test_a_coordinators_numbers_are_those_of_its_register(runs: Runs) -> None:
    pytest.importorskip("prometheus_client")
    from hansa.observing.scraped import served
    from hansa_server.metrics import registry_of

    run = exchanged(runs, times=2)
    with served(registry_of(runs), "127.0.0.1:0") as port:
        found = scraped(port)
        with pytest.raises(PortError), served(registry_of(runs), f"127.0.0.1:{port}"):
            pass
    assert found[f'hansa_run_exchange_seconds_sum{{phase="masked",run="{run}"}}'] == 4.0
    assert found[f'hansa_run_exchange_seconds_count{{phase="masked",run="{run}"}}'] == 2.0
    states = {
        kind: found[f'hansa_run_members{{run="{run}",state="{kind}"}}']
        for kind in ("present", "late", "absent")
    }
    assert set(states.values()) == {1.0}
    assert found[f'hansa_run_rounds{{kind="planned",run="{run}"}}'] == 5.0
    assert found["hansa_scrape_failed_runs"] == 0.0
    assert found["process_resident_memory_bytes"] > 0


def test_a_nodes_numbers_hold_its_budget_and_no_count_of_its_data(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    from hansa.observing.scraped import served
    from hansa_client.metrics import NodeMetrics

    home = tmp_path / "north"
    officer = tmp_path / "officer"
    assert hansa("node", "officer", "north", "--out", officer).status == 0
    assert (
        hansa("node", "init", "north", "--home", home, "--officer", officer / "north.officer.pub").status == 0
    )
    granted = hansa(
        "node", "grant", "--home", home, "--officer-key", officer / "north.officer.key", "--epsilon", "4",
        "--delta", "1e-3", "--unit", "record", "--max-records", "1",
    )  # fmt: skip
    assert granted.status == 0
    metrics = NodeMetrics(read_home(home), lambda: True)
    request = asked()
    refusal = Message("refusal", {"code": "absent"})
    metrics.noted(Answer(about_request(request), Message("sum", {}), request.payload_bytes, 0.2))
    metrics.noted(Answer(about_request(request), refusal, request.payload_bytes, 0.1))
    with served(metrics.registry, "127.0.0.1:0") as port:
        first, found = scraped(port), scraped(port)
    assert first.keys() == found.keys()
    left = [value for name, value in found.items() if name.startswith("hansa_node_budget_epsilon_left")]
    assert left == [4.0]
    assert found['hansa_node_requests_total{outcome="answered",phase="masked"}'] == 1.0
    assert found['hansa_node_requests_total{outcome="absent",phase="masked"}'] == 1.0
    assert found['hansa_node_bytes_total{direction="in"}'] == 2 * request.payload_bytes
    assert found["hansa_node_connected"] == 1.0
    assert found["hansa_node_round"] == 3.0
    own = {re.split(r"[{ ]", name)[0] for name in found if name.startswith("hansa_")}
    assert not {name for name in own if re.search("record|unit|batch|loss|sample", name)}


def test_numbers_that_cannot_be_looked_up_end_nothing_and_tell_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client import CollectorRegistry, generate_latest

    from hansa.observing.scraped import WhenAsked

    def fails() -> list:
        raise ValueError("a secret")

    registry = CollectorRegistry()
    registry.register(WhenAsked(fails, "it"))
    assert b"hansa_scrape_failed_it 1.0" in generate_latest(registry)
    assert b"secret" not in generate_latest(registry)
    assert "numbers could not be looked up" in caplog.text


def test_metrics_are_off_until_a_file_says_where(tmp_path: Path) -> None:
    assert hansa("node", "init", "coordinator", "--role", "coordinator", "--home", tmp_path / "c").status == 0
    home = tmp_path / "auditor"
    assert hansa("node", "init", "watch", "--role", "auditor", "--home", home).status == 0
    assert not read_home(home).settings.metrics.listen
    path = home / "node.toml"
    path.write_text(path.read_text() + '\n[metrics]\nlisten = "nowhere"\n')
    from hansa.identity.errors import NodeFileError

    with pytest.raises(NodeFileError) as error:
        read_home(home)
    told = " ".join(map(str, error.value.problems))
    assert "host:port" in told
    path.write_text(path.read_text().replace("nowhere", "127.0.0.1:9464"))
    with pytest.raises(NodeFileError) as error:
        read_home(home)
    assert "is a member's" in " ".join(map(str, error.value.problems))  # an auditor's process answers nobody


def test_the_live_table_shows_members_phases_and_what_is_waited_for(runs: Runs) -> None:
    run = exchanged(runs, times=2)
    runs.tell(run, "waiting", note="waiting for 1 of west")
    row = runs.one(run)
    looks = []

    def look() -> Seen:
        looks.append(1)
        return Seen("127.0.0.1:1", True, {"north": "here", "west": "away"}, row, runs.watched(run))

    stream = io.StringIO()
    watch(look, ended=lambda: len(looks) == 1, console=Console(file=stream, width=120, force_terminal=True))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    for words in (
        "north",
        "here",
        "present",
        "west",
        "away",
        "absent",
        "masked",
        "2.00",
        "waiting for 1 of west",
    ):
        assert words in shown, shown
    empty = io.StringIO()
    console = Console(file=empty, width=120)
    watch(lambda: Seen("h:1", False, {"a": "unknown"}, None, None), ended=lambda: True, console=console)
    assert "no run yet" in empty.getvalue()
    assert "does not answer" in empty.getvalue()


def test_a_live_table_needs_a_terminal() -> None:
    with pytest.raises(UsageError, match="stdout is none"):
        watch(lambda: pytest.fail("nobody looks"))

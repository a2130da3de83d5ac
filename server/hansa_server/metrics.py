"""A coordinator's numbers for a Prometheus; see `[metrics]` of `coordinator.toml`.

They are read from the register of runs when somebody asks, so that they outlive the processes that carry a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from hansa.observing.scraped import WhenAsked, registry_of_process
from hansa_server.runs import Runs, State

RUNS_SHOWN = 5  # the newest


def registry_of(runs: Runs) -> CollectorRegistry:
    """A registry with the process's numbers and those of the newest runs."""
    registry = registry_of_process()
    registry.register(WhenAsked(lambda: _of_runs(runs), "runs"))
    return registry


def _of_runs(runs: Runs) -> Iterator[Metric]:
    state = GaugeMetricFamily("hansa_run_state", "1 for the state that a run is in.", labels=["run", "state"])
    rounds = GaugeMetricFamily("hansa_run_rounds", "Rounds, finished and planned.", labels=["run", "kind"])
    carried = GaugeMetricFamily("hansa_run_flower_runs", "Flower runs that carried a run.", labels=["run"])
    members = GaugeMetricFamily(
        "hansa_run_members", "Members in the last exchange: present, late, absent.", labels=["run", "state"]
    )
    seconds = SummaryMetricFamily(
        "hansa_run_exchange_seconds", "Seconds of exchanges, by phase.", labels=["run", "phase"]
    )
    size = CounterMetricFamily(
        "hansa_run_bytes", "Bytes of wire messages, over all members.", labels=["run", "phase", "direction"]
    )
    for row in runs.all()[:RUNS_SHOWN]:
        for one in get_args(State):
            state.add_metric([row.run, one], float(row.state == one))
        rounds.add_metric([row.run, "finished"], row.round)
        rounds.add_metric([row.run, "planned"], row.rounds)
        carried.add_metric([row.run], len(row.flower_runs))
        watched = runs.watched(row.run)
        counted = Counter(watched.attendance.values())
        for kind in ("present", "late", "absent"):
            members.add_metric([row.run, kind], counted[kind])
        for phase in watched.phases:
            seconds.add_metric([row.run, phase.phase], phase.count, phase.seconds)
            size.add_metric([row.run, phase.phase, "out"], phase.sent_bytes)
            size.add_metric([row.run, phase.phase, "in"], phase.received_bytes)
    yield from (state, rounds, carried, members, seconds, size)

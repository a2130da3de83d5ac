"""Serving numbers to a Prometheus. The only file of `hansa` that imports prometheus-client (extra ``metrics``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hansa.errors import PortError
from hansa.following.address import Address

Collect: TypeAlias = Callable[[], Iterable[Metric]]
_LOG = logging.getLogger("hansa.observing")


class WhenAsked(Collector):
    """Numbers that are looked up when somebody asks.

    Args:
        collect: looks them up. Where it fails the answer says so in `hansa_scrape_failed`, and the process goes on.
        what: names the numbers in that.
    """

    def __init__(self, collect: Collect, what: str) -> None:
        self._collect, self._what = collect, what

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        failed = 0
        try:
            yield from list(self._collect())
        except Exception:  # noqa: BLE001  # whoever asks must not end a node, nor read what an exception says
            _LOG.exception("numbers could not be looked up")
            failed = 1
        told = GaugeMetricFamily(
            f"hansa_scrape_failed_{self._what}", "1 where numbers could not be looked up."
        )
        told.add_metric([], failed)
        yield told

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register is not to look up."""
        return []


def registry_of_process() -> CollectorRegistry:
    """A registry with the process's own numbers: processor time, resident memory, descriptors."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def served(registry: CollectorRegistry, listen: str) -> Iterator[int]:
    """Serve a registry's numbers at ``http://HOST:PORT/metrics`` meanwhile; the port.

    Raises:
        PortError: nobody can listen there.
    """
    address = Address.parse(listen, any_port=True)
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise PortError(f"cannot serve metrics at {address}: {error.strerror}") from None
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""The section ``[metrics]`` of `node.toml` and `coordinator.toml`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from hansa.agreement.section import Section
from hansa.errors import UsageError
from hansa.following.address import Address


def _address(text: str) -> str:
    if text:
        try:
            Address.parse(text, any_port=True)
        except UsageError as error:
            raise ValueError(error.cause) from None
    return text


class Metrics(Section):
    """Numbers for a Prometheus.

    Attributes:
        listen: ``HOST:PORT`` where they are served, over plain HTTP to whoever asks there; empty for nowhere. A member's
            own budget is among a node's: 127.0.0.1 keeps them on the machine.
    """

    listen: Annotated[str, StringConstraints(max_length=300), AfterValidator(_address)] = ""


METRICS_TOML = """
# Numbers for a Prometheus, over plain HTTP at this address; nowhere, where it is left out. Nothing leaves by itself,
# but whoever reaches the address can read: keep it on 127.0.0.1. Needs: pip install 'hansa[metrics]'
[metrics]
# listen = "127.0.0.1:9464"
"""

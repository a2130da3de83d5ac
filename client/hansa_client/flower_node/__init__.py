"""The member's end of the Flower carrier: a place at a SuperLink, and a ClientApp for simulations.

`Link` makes this process itself the Flower node: it dials out over TLS with the node's key, takes requests, hands
them to the member's node and carries the replies back. It never asks for an app bundle. Nothing but `hansa.wire`
messages passes: Flower would put the text of an exception into its reply; here nothing is raised towards it, and a
request that cannot be answered gets an empty record, which reads as absence.

Flower offers no public way to be a node, so `link` uses modules that Flower keeps to itself (`flwr.supernode`,
`flwr.supercore`, `flwr.proto`, `flwr.common.serde`). It is the only file at a member that does, beside
what both ends share (`hansa_flower`); `tests/contract/test_flower_node.py` runs it against a real SuperLink.
"""

from hansa_client.flower_node.answering import AnswersRequests, client_app
from hansa_client.flower_node.link import Link, LinkTerms, PlaceKept

__all__ = ["AnswersRequests", "Link", "LinkTerms", "PlaceKept", "client_app"]

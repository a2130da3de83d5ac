"""What both ends of the Flower carrier share: wire messages as Flower's records, sent and fetched piece by piece.

`hansa` itself, which auditors install alone, imports no flwr. What Flower keeps to itself is used in `arriving` and `sending`;
`tests/contract/test_flower_node.py` runs both against a real SuperLink.
"""

from hansa_flower.records import MESSAGE_TYPE, RAW, from_records, to_records

__all__ = ["MESSAGE_TYPE", "RAW", "from_records", "to_records"]

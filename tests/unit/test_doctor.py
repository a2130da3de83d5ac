"""What `hansa node doctor` says of a thing that is wrong: what it is, and apart from that what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hansa.errors import CoordinatorError, HansaError, LinkError, Problem
from hansa_client.doctor import Check, _tried


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (LinkError("h:1 cannot be\n reached", remedy="Do this."), "HANSA-506: h:1 cannot be reached"),
        (
            CoordinatorError("it is wrong", [Problem("a", "is b"), Problem("c", "is d")], remedy="Do this."),
            "HANSA-508: it is wrong; a: is b; c: is d",
        ),
    ],
)
def test_what_is_wrong_stands_apart_from_what_to_do(error: HansaError, found: str) -> None:
    def look() -> Iterator[Check]:
        yield Check("superlink", "good", "answers")
        raise error

    assert list(_tried("superlink", look)) == [
        Check("superlink", "good", "answers"),
        Check("superlink", "wrong", found, "Do this."),
    ]

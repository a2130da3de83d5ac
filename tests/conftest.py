"""Settings that all tests share."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# Nothing of what is collected here is garbage, and there is much of it: it is not looked through again and again.
gc.disable()

# Before any test imports the libraries that read them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Models in tests are small: more threads cost more than they bring, most of all where tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test judges time: a slow machine is no failure of the code. The examples of a run are always the same, so that what is red
# is red again; HANSA_LONG_TESTS=1 draws new ones, and more.
settings.register_profile("hansa", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("hansa-long", deadline=None, max_examples=400)
settings.load_profile("hansa-long" if "HANSA_LONG_TESTS" in os.environ else "hansa")


def pytest_collection_finish() -> None:
    """From here on only what tests make is looked through."""
    gc.collect()
    gc.freeze()
    gc.enable()

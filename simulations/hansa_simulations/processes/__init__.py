"""Leagues of real processes on this machine, for benches and tests; see `league`."""

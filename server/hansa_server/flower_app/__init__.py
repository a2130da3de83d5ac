"""The coordinator's end of Flower: the ServerApp, the league behind a Grid, the SuperLink, and its control.

The bundle that `flwr run` wants (`deploy/flower-app/pyproject.toml`) names `hansa_server.flower_app.serverapp:app` and holds no
code. What Flower keeps to itself is used in `control`, `superlink`, `superexec`, `shorter`, `carrying`, `objects`,
`league_grid` and `arriving` alone.
"""

from hansa_server.flower_app.grid import GridMembers, from_records, server_app, to_records

__all__ = ["GridMembers", "from_records", "server_app", "to_records"]

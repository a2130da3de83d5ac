"""The coordinator's end of Flower: the ServerApp, the league behind a Grid, the SuperLink, and its control.

The bundle that `flwr run` wants (`deploy/flower-app/pyproject.toml`) names `hansa_server.flower_app.serverapp:app` and holds no
code. What Flower keeps to itself is used in `control`, `superlink`, `superexec`, `shorter`, `carrying`, `objects`,
and `league_grid` alone, and in `hansa_flower`.
"""

from hansa_server.flower_app.grid import GridMembers, server_app

__all__ = ["GridMembers", "server_app"]

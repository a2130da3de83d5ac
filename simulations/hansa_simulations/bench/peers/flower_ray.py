"""Flower's own simulation runtime on Ray, with clients that do nothing: how long a round and the start take.

The strategy is Flower's FedAvg. Each client adds a constant to the float32 vector that it is sent and returns it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

client_app = ClientApp()


@client_app.train()
def train(message: Message, _context: Context) -> Message:
    """Return the model, a little changed."""
    arrays = [
        array + np.float32(0.01) for array in message.content.array_records["arrays"].to_numpy_ndarrays()
    ]
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


def server_app(clients: int, floats: int, rounds: int, ends: list[float]) -> ServerApp:
    """A ServerApp that trains for `rounds` and notes when each round ended, its own start first."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        def note(number: int, _arrays: ArrayRecord) -> MetricRecord:
            ends.append(time.perf_counter())
            return MetricRecord({"round": number})

        strategy = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        arrays = ArrayRecord([np.zeros(floats, dtype=np.float32)])
        strategy.start(grid, arrays, num_rounds=rounds, evaluate_fn=note)

    return app


def main() -> None:
    """Measure, and write ``{"start_s": …, "round_s": […]}``; the first round counts as start."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--clients", "--floats", "--rounds"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    ends: list[float] = []
    app = server_app(asked.clients, asked.floats, asked.rounds + 1, ends)
    began = time.perf_counter()
    run_simulation(
        app,
        client_app,
        num_supernodes=asked.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    # `ends` holds model 0 and every round; a run that lost rounds measured something else
    if len(ends) != asked.rounds + 2:
        raise SystemExit(f"{len(ends) - 1} of {asked.rounds + 1} rounds ended")
    measured = {"start_s": ends[1] - began, "round_s": [float(s) for s in np.diff(ends[1:])]}
    asked.out.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

"""What an engine costs: a federation whose members do nothing, beside Flower's own runtime doing the same.

On Hansa's side each member is the node of a baseline, so that a round is the whole path: ServerApp and ClientApp calls, wire
messages and their hashes, the ring encoding, the ring sum and the server step. The training is missing, and so are
masks: the agreement is that of a baseline, because here the engine is measured; `hansa bench secagg` measures sums.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Frozen, FrozenModel, parse_agreement
from hansa.canonical import sha256_hex
from hansa.errors import EngineError, TrainingError
from hansa.wire import array_sha256
from hansa_simulations.bench.figures import Bench, Figure, Ratio, describe_machine
from hansa_simulations.bench.peers import run_peer

if TYPE_CHECKING:
    from hansa_server.federation import Outcome

GOAL_MS_PER_CLIENT = 1.0
_CHANGE = 0.01  # what every client adds to every weight, in both systems
_PEER = "hansa_simulations.bench.peers.flower_ray"
_START_TIMEOUT_S = 300.0
_ROUND_TIMEOUT_S = 60.0


class IdleTraining:
    """Stands where a trainer would and returns the same update whatever it is asked."""

    def train(
        self,
        weights: npt.NDArray[np.float64],
        _randomness: object,
        _rotation: object = None,
        _adapted: object = None,
    ) -> npt.NDArray[np.float64]:
        """A new vector of the same small numbers, float64 [d]."""
        return np.full(len(weights), _CHANGE)


class NoDraws:
    """The randomness of members that draw nothing."""

    def key(self) -> bytes:
        """Never asked."""
        raise TrainingError("a member that does nothing was to draw units")

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        """Never asked."""
        raise TrainingError(
            f"a member that does nothing was to draw {size} numbers of noise at sigma {sigma:g}"
        )


def measure_engines(clients: int, floats: int, rounds: int) -> Bench:
    """Measure the local engine and then Flower's Ray runtime, one after the other.

    Args:
        clients: 3 to 100.
        floats: length of the model.
        rounds: that are measured, after one that is not.

    Raises:
        EngineError: a side lost rounds or clients, so that what it measured is something else.
    """
    local_start_s, local_round_s, upload_bytes = _measure_local(clients, floats, rounds)
    sizes = {"--clients": clients, "--floats": floats, "--rounds": rounds}
    arguments = [str(part) for pair in sizes.items() for part in pair]
    ray = run_peer(_PEER, arguments, timeout_s=_START_TIMEOUT_S + rounds * _ROUND_TIMEOUT_S)
    ray_round_s = [float(value) for value in ray["round_s"]]
    local = _per_client(
        "local", "Hansa, local engine: per client", local_round_s, clients, GOAL_MS_PER_CLIENT
    )
    peer = _per_client("ray", "Flower, Ray runtime: per client", ray_round_s, clients)
    local_start = Figure("local_start_s", "Hansa: start and first round", (local_start_s,))
    ray_start = Figure("ray_start_s", "Flower: start and first round", (float(ray["start_s"]),))
    upload = Figure("upload_bytes_per_client", "Hansa: update on the wire, per client", tuple(upload_bytes))
    machine = describe_machine()
    return Bench(
        title=f"{clients} clients that do nothing, {floats:,} floats",
        settings={"clients": clients, "floats": floats, "rounds": rounds},
        figures=(local, peer, local_start, ray_start, upload),
        ratios=(
            Ratio("ms_per_client", "time per client", peer=peer, ours=local),
            Ratio("start_s", "time to the end of the first round", peer=ray_start, ours=local_start),
        ),
        notes=(
            "A round is request, replies, sum and server step, without masks on either side.",
            f"Hansa's local engine ran in one thread; Ray was given the machine's {machine['cores']} cores.",
            "Flower carries float32 models under FedAvg; Hansa carries float64 models down, 32-bit ring vectors up.",
        ),
        machine=machine,
    )


def idle_agreement(clients: int, floats: int, rounds: int) -> tuple[Agreement, npt.NDArray[np.float64]]:
    """A frozen agreement without a privacy mechanism or masks, and its model 0: zeros, float64 [floats].

    The model is named but never built: between the wire and the server step it is a vector of a length.
    """
    members = "\n".join(f'[[members]]\nname = "client-{i:03d}"\nunits = 1000' for i in range(1, clients + 1))
    agreement = parse_agreement(
        f"""
        baseline = "local-only"
        [task]
        name = "members that do nothing"
        labels = ["no", "yes"]
        [data]
        label = "answer"
        features = [{{ kind = "number", name = "x", range = [0.0, 1.0] }}]
        [model]
        kind = "logistic"
        [training]
        rounds = {rounds}
        learning_rate = 1.0
        [privacy]
        mechanism = "none"
        clipping_norm = 1.0
        sampling_rate = 1.0
        steps = {rounds}
        {members}
        """,
        name="the idle agreement",
    )
    model = np.zeros(floats)
    hashes = FrozenModel(parameters=floats, initial_sha256=array_sha256(model), frozen_sha256=sha256_hex(b""))
    return agreement.freeze(Frozen(terms_id=agreement.terms_id, model=hashes)), model


def _measure_local(clients: int, floats: int, rounds: int) -> tuple[float, list[float], list[float]]:
    """Seconds to the end of the first round, seconds of each later one, and bytes of each client's update."""
    from hansa_client.flower_node import AnswersRequests
    from hansa_server.federation import run_federation
    from hansa_server.journal import InMemoryJournal
    from hansa_server.members import Members
    from hansa_simulations.baseline import BaselineNode, PlainSummation
    from hansa_simulations.baseline.state import MemoryStore
    from hansa_simulations.engines.local import run_in_process

    agreement, model = idle_agreement(clients, floats, rounds + 1)
    nothing = NoDraws()
    began = time.perf_counter()
    nodes: list[AnswersRequests] = [
        BaselineNode(
            agreement, member.name, IdleTraining(), None, MemoryStore(), lambda _run, _round: nothing
        )
        for member in agreement.terms.members
    ]
    ends: list[float] = []
    outcomes: list[Outcome] = []

    def coordinate(members: Members) -> None:
        def note(_outcome: Outcome) -> None:
            ends.append(time.perf_counter())

        journal = InMemoryJournal(keep=1)
        summation = PlainSummation(agreement, members, journal, "bench")
        outcomes.append(
            run_federation(
                agreement, model, members, journal, run="bench", summation=summation, after_round=note
            )
        )

    run_in_process(agreement, nodes, "bench", coordinate)
    _require_whole(agreement, outcomes[0], rounds + 1)
    uploads = [float(value) for value in outcomes[0].rounds[-1].upload_bytes.values()]
    return ends[0] - began, [float(value) for value in np.diff(ends)], uploads


def _require_whole(agreement: Agreement, outcome: Outcome, rounds: int) -> None:
    """Every client was summed in every round, and the model is where that many updates bring it."""
    from hansa.protocol import update_encoding

    clients = len(agreement.terms.members)
    present = [len(record.present) for record in outcome.rounds]
    if present != [clients] * rounds:
        raise EngineError(f"clients summed by round were {present}, not {clients} in each of {rounds}")
    reached, wanted = outcome.state.weights, rounds * _CHANGE
    # each client's vector is rounded to the ring once a round, by half a step at most
    rounding = rounds * clients * 0.5 / update_encoding(agreement).scale
    if not np.allclose(reached, wanted, rtol=1e-9, atol=rounding):
        raise EngineError(f"{rounds} rounds led to {reached.min():g} … {reached.max():g}, not {wanted:g}")


def _per_client(
    name: str, what: str, round_s: Sequence[float], clients: int, goal: float | None = None
) -> Figure:
    samples = tuple(1000.0 * seconds / clients for seconds in round_s)
    return Figure(f"{name}_ms_per_client", what, samples, goal)

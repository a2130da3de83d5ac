"""The server optimisers, as a specified element-wise float64 procedure with explicit state.

Whoever holds a state and the mean update of a round derives the next state for itself, with the same bits on
every machine: the coordinator, each member, and an auditor who replays a run. The arithmetic is written down
in `docs/decisions/0010-server-step.md`; known answers stand in `tests/vectors/server_step.json`.
"""

from hansa.server_step.rules import refuse_if_unsupported
from hansa.server_step.schedule import learning_rate
from hansa.server_step.state import ServerState, published_weights, state_from_message
from hansa.server_step.transition import initial_state, step, tail_rounds

__all__ = [
    "ServerState",
    "initial_state",
    "learning_rate",
    "published_weights",
    "refuse_if_unsupported",
    "state_from_message",
    "step",
    "tail_rounds",
]

"""From the performance settings of one machine to engines and trainers: the fast path, where it changes no promise."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from hansa.agreement import Agreement, Performance
from hansa.models import BuiltModel
from hansa_client.data import Dataset
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations, longest
from hansa_client.training.memory import available_bytes
from hansa_client.training.microbatch import fastest_microbatch
from hansa_client.training.plan import TrainingPlan
from hansa_client.training.trainer import Trainer

_LOG = logging.getLogger("hansa.node")  # the member's own
_SHARE = 4  # one of so many parts of the free memory is for activations that nobody asked to keep
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def engine_for(built: BuiltModel, performance: Performance) -> GradientEngine:
    """The engine of a model in the precision of the settings.

    Raises:
        ModelError, TrainingError: see `GradientEngine`.
    """
    return GradientEngine(built, precision=_PRECISIONS[performance.precision])


class TrainerFactory:
    """Makes the trainers of the members that one process answers for.

    Args:
        engine: for the agreement's model, which the members share.
        agreement: frozen; its `performance` says how fast and in how much memory.
        available: tells the bytes of memory that may still be taken, or `None`.

    Guarantees: what the trainers add noise to, how much, and how often follows from the agreement's terms; see
        `hansa.agreement.local.Performance`. The microbatch is measured on public inputs; whether activations are kept
        depends on the numbers and lengths of a member's records, and nothing of it leaves the process but time.
    """

    def __init__(
        self,
        engine: GradientEngine,
        agreement: Agreement,
        *,
        available: Callable[[], int | None] = available_bytes,
    ) -> None:
        self._engine = engine
        self._agreement = agreement
        self._available = available
        self._room: int | None = None
        self._kept: list[KeptActivations] = []
        self._microbatches: dict[bool, int] = {}

    def trainer(self, member: str, dataset: Dataset) -> Trainer:
        """The trainer of a member.

        Raises:
            TrainingError: activations shall be kept and cannot be, or the plan does not fit model or data.
        """
        plan = TrainingPlan.of(self._agreement, member)
        kept = self._kept_for(dataset)
        if plan.physical_batch_size is None and self._agreement.terms.private:
            plan = replace(plan, physical_batch_size=self._microbatch(kept=kept is not None))
        return Trainer(self._engine, dataset, plan, kept=kept)

    def close(self) -> None:
        """Forget the activations of all members."""
        for kept in self._kept:
            kept.close()
        self._kept.clear()

    def _microbatch(self, *, kept: bool) -> int:
        if kept not in self._microbatches:
            built = self._engine.built
            # without a tokenizer the public probe says how long texts are, if inputs are texts
            places = longest(built.probe_inputs) if built.tokenizer is None else built.tokenizer.max_tokens
            self._microbatches[kept] = fastest_microbatch(self._engine, places, kept=kept)
            _LOG.info("records in one pass: %d", self._microbatches[kept])
        return self._microbatches[kept]

    def _kept_for(self, dataset: Dataset) -> KeptActivations | None:
        wish = self._agreement.performance.keep_activations
        if wish == "off" or (wish == "auto" and not (len(dataset) and self._fits(dataset))):
            return None
        folder = Path(tempfile.gettempdir()) if wish == "disk" else None
        kept = self._engine.keep(dataset.inputs, folder)
        self._kept.append(kept)
        return kept

    def _fits(self, dataset: Dataset) -> bool:
        """Whether there is something to keep in a run with privacy, and room for it, which is then taken."""
        if not self._agreement.terms.private or self._engine.frozen_part is None:
            return False
        if self._room is None:
            free = self._available() or 0
            self._room = free // (_SHARE * self._agreement.performance.processes)
        wanted = self._engine.frozen_part.bytes_for(len(dataset), longest(dataset.inputs))
        if wanted > self._room:
            _LOG.info("no activations are kept: %d bytes, and room for %d", wanted, self._room)
            return False
        self._room -= wanted
        return True

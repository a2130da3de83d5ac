"""The coordinator's seat in a simulated run: everybody's keys, the federation's log, and what is left for an auditor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.agreement.amendments import Proposal
from hansa.identity import COORDINATOR
from hansa.ledger import Log, MemoryLogStore, NoteSigner, export_tiles
from hansa.ledger.trust import TrustedKeys
from hansa.quorum import threshold
from hansa.secagg import MemoryStore
from hansa_server.history import History
from hansa_server.summation import SumHouse, Verifier
from hansa_simulations.identities import VERIFIER, Identities
from hansa_simulations.league import Sums, TrainingLeague

if TYPE_CHECKING:
    from hansa.secagg.record import RoundRecord

Vector: TypeAlias = npt.NDArray[np.float64]


def history_of(
    log: Log,
    agreement: Agreement,
    identities: Identities,
    kind: type[History] = History,
    amendments: Sequence[Proposal] = (),
) -> History:
    """The coordinator's end of a federation's log, with the keys of a simulation; `kind` for one that lies."""
    return kind(
        log,
        identities.signer(COORDINATOR),
        agreement.agreement_id,
        identities.keyring(agreement.agreement_id),
        identities.witness_keys,
        threshold(len(identities.roster.members)),
        lambda: datetime.now(UTC),
        amendments,
    )


@dataclass(frozen=True)
class Seat:
    """See above.

    Attributes:
        agreement: frozen.
        run: the run's name.
        identities: of everybody.
        log: the federation's.
        rounds: the signed record of every finished round, as lines.
    """

    agreement: Agreement
    run: str
    identities: Identities
    log: Log
    rounds: list[str] = field(default_factory=list)

    @classmethod
    def taken(cls, agreement: Agreement, run: str, home: Path | None) -> Seat:
        """A seat for a new run.

        Args:
            agreement: frozen.
            run: the run's name.
            home: where members keep their state between runs, and with it their keys; otherwise all keys are new.
        """
        names = [member.name for member in agreement.terms.members]
        identities = Identities.ephemeral(names) if home is None else Identities.at(home, names)
        log = Log(MemoryLogStore(), NoteSigner.generate(f"hansa.simulation/federation/{run}"))
        return cls(agreement, run, identities, log)

    def sums(self, start: Vector, *, roaming: bool) -> Sums:
        """What the members need of it."""
        return Sums(self.identities, start, self.run, self.log.key.text, roaming)

    def house(self) -> SumHouse:
        """The coordinator's keys, and a verifier that recomputes every sum before its vectors are let go."""
        identities = self.identities
        private = self.agreement.terms.private
        history = history_of(self.log, self.agreement, identities) if private else None
        return SumHouse(
            identities.signer(COORDINATOR),
            identities.roster,
            MemoryStore(),
            Verifier(identities.signer(VERIFIER)),
            history,
            self._keep,
        )

    def export(self, league: TrainingLeague, folder: Path) -> None:
        """Write copies of all logs, the rounds' records and the public keys, as an auditor gets them."""
        folder.mkdir(parents=True)
        note = self.log.last_checkpoint() or self.log.checkpoint()
        export_tiles(self.log, note, folder / "federation")
        for name in self.identities.roster.members:
            with league.log(name) as log:
                signed = log.last_checkpoint()
                if signed is not None:
                    export_tiles(log, signed, folder / "members" / name)
        (folder / "rounds.jsonl").write_text("".join(f"{line}\n" for line in self.rounds), encoding="utf-8")
        self.keys().write(folder / "keys.json")

    def keys(self) -> TrustedKeys:
        """The public keys that an auditor must have from elsewhere."""
        identities = self.identities
        return TrustedKeys(
            agreement_id=self.agreement.agreement_id,
            quorum=threshold(len(identities.roster.members)),
            members=dict(identities.roster.members),
            coordinator=identities.roster.coordinator,
            auditors=dict(identities.roster.auditors),
            federation_log=self.log.key.text,
            logs={name: key.text for name, key in identities.log_keys.items()},
            witnesses={name: key.text for name, key in identities.witness_keys.items()},
            officers=dict(identities.officer_keys),
        )

    def _keep(self, record: RoundRecord) -> None:
        self.rounds.append(record.model_dump_json())

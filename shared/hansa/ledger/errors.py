"""Errors of the ledger: notes, entries, stores, witnesses, tiles, members' own logs. HANSA-74x and 75x.

A Merkle proof that fails is `hansa.errors.ProofError`.
"""

from __future__ import annotations

from hansa.errors import BudgetRefusedError, ExitStatus, HansaError, MachineError, ProblemsError


class NoteFormatError(HansaError):
    """A signed note, a checkpoint, a proof or a key is not in its one form."""

    code = "HANSA-742"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Get it again from where it was made; docs/ledger-format.md says what it must look like."


class NoteSignatureError(HansaError):
    """A note is not signed by a key that is trusted for it."""

    code = "HANSA-743"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = (
        "Compare the keys with their owners over another channel: they may be those of another federation."
    )


class CosignatureQuorumError(HansaError):
    """Fewer witnesses have cosigned a checkpoint than the policy demands."""

    code = "HANSA-744"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Collect the missing cosignatures; until then others may be shown another log."


class EntryError(HansaError):
    """An entry is not in its one form, or says what no entry of its type may say."""

    code = "HANSA-745"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Get the file again from where it was made, or use the release that wrote it."


class LogVerificationError(HansaError):
    """A log is not what its checkpoint says, or holds what it may not hold."""

    code = "HANSA-746"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Do not rely on the log; keep the copy, and compare it with other members' copies."


class LogStoreError(MachineError):
    """The file of a log or a witness cannot be used; nothing in it was changed."""

    code = "HANSA-747"
    remedy = "See what is named, then try again; nothing in the file was changed."


class LogDamagedError(MachineError):
    """The file of a log or a witness contradicts itself: it was damaged, or edited. Whoever mends it can go on."""

    code = "HANSA-748"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Do not write to it; compare a copy with the last checkpoint that witnesses cosigned."


class WitnessRefusedError(HansaError):
    """A checkpoint does not follow from the last one that this witness has cosigned.

    Attributes:
        size: of the last one that it has cosigned, so that the log can prove from there; 0 for none.
    """

    code = "HANSA-749"
    exit_status = ExitStatus.REFUSED

    def __init__(self, cause: str, size: int) -> None:
        super().__init__(cause)
        self.size = size


class ForkError(HansaError):
    """Two checkpoints, both signed by the log, cannot both be true.

    Attributes:
        notes: the two, as texts: they prove it to anyone.
    """

    code = "HANSA-750"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Keep both notes and show them to the other members; believe neither."

    def __init__(self, cause: str, notes: tuple[str, str]) -> None:
        super().__init__(cause)
        self.notes = notes


class TilesError(HansaError):
    """A folder of tiles is incomplete, or is not that of its checkpoint."""

    code = "HANSA-751"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Get the folder again from where it was exported."


class NoBudgetError(BudgetRefusedError):
    """No budget is granted for a member's data, so nothing of them can be spent."""

    code = "HANSA-752"
    remedy = "Have the member's privacy officer sign a grant, and put it into the member's ledger."


class ClockError(HansaError):
    """The clock stands before the time of the last entry; nothing was written."""

    code = "HANSA-753"
    exit_status = ExitStatus.REFUSED
    remedy = "Set the clock, then start the node again. The order of a log is never that of clocks."


class OldCopyError(HansaError):
    """The federation's log shows words of this member that its own log lacks: it was restored from an old copy.

    Attributes:
        missing: which, in words.
    """

    code = "HANSA-754"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = "Run `hansa node recover` to rebuild what was spent from the federation's log; release nothing before."

    def __init__(self, missing: tuple[str, ...]) -> None:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        super().__init__(
            f"this member's ledger lacks {missing[0]}{more}: it was restored from an old copy, or runs twice"
        )
        self.missing = missing


class NewsRefusedError(HansaError):
    """What came as news of the federation's log does not continue it, or may not stand in it. Nothing was taken.

    Attributes:
        size: how much of the log is held here.
    """

    code = "HANSA-755"
    travels = True
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Compare the log with other members' copies; take part in nothing that rests on this news."

    def __init__(self, cause: str, size: int) -> None:
        super().__init__(cause)
        self.size = size


class CheckpointRefusedError(HansaError):
    """The checkpoint of a manifest does not bind the coordinator to all that this member knows."""

    code = "HANSA-756"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = (
        "Wait for a checkpoint that enough members have cosigned and that shows this member's own entries."
    )


class UnrecordedVectorError(HansaError):
    """A round is to be summed of which the federation's log does not show every release. Nothing was signed or opened.

    Attributes:
        missing: the members whose releases are not there.
    """

    code = "HANSA-760"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = "Show the member the log with every release of the round, then ask again."

    def __init__(self, run: str, number: int, missing: tuple[str, ...]) -> None:
        super().__init__(
            f"the log shows no such release of {', '.join(map(repr, missing))} in round {number} of run {run}"
        )
        self.missing = missing


class RecoveryError(HansaError):
    """A member's ledger cannot be rebuilt from what was given; nothing was written."""

    code = "HANSA-757"
    exit_status = ExitStatus.REFUSED


class UnsignedAgreementError(HansaError):
    """Members have not signed an agreement, so that nobody knows the keys of their logs, witnesses and officers.

    Attributes:
        missing: which, in the agreement's order.
    """

    code = "HANSA-758"
    exit_status = ExitStatus.REFUSED
    remedy = "Have each of them sign, and put its signature into the folder: hansa agreement sign FROZEN --home DIR"

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(f"not signed yet by {', '.join(missing)}")
        self.missing = missing


class TrustedKeysError(ProblemsError):
    """A file of trusted keys cannot be read, or holds keys by which no log could be checked."""

    code = "HANSA-759"
    remedy = "Get the file again from its maker, and compare the keys with their owners over another channel."


class CopyUnreadableError(HansaError):
    """A file of a copy is there, and the machine cannot read it: a permission, a disk. It says nothing of the log."""

    code = "HANSA-762"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Give yourself the right to read it, or copy it again; nothing is known of the log until then."

"""Parts of `demo-league.sh`: generated data, an agreement, a line of settings, and the last line about what was verified."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

TERMS = """\
schema_version = 1

[task]
name = "Readmission, on generated points"
labels = ["no", "yes"]

{members}
[data]
label = "outcome"

[[data.features]]
kind = "number"
name = "x"
range = [-1.0, 1.0]

[[data.features]]
kind = "number"
name = "y"
range = [-1.0, 1.0]

[[data.groups]]
kind = "category"
name = "sex"
values = ["f", "m"]

[model]
kind = "logistic"

[training]
rounds = {rounds}
learning_rate = 0.5
deadline_s = 300.0

[secure_sum]
retries = 1

[privacy]
mechanism = "{mechanism}"
epsilon = 5.0
delta = 1e-4
clipping_norm = 1.0
sampling_rate = 0.25
steps = {steps}

[evaluation]
bins = 2
max_rows_per_cell = {records}
epsilon = 6.0
compared = "decisions"
share = 0.3

[fairness]
max_gap = 0.2
min_worst_group = 0.6
min_group_size = 100

[publication]
compress = ["onnx", "int8"]
min_quality = 0.6
"""
RECORDS, ROUNDS = 1500, 5
JUDGES = """\
[evaluation]
dataset_id = "{dataset}"
unprotected_files = true  # these records are generated: also where this machine lacks a wall around a model's file
"""


def prepare(folder: Path, mechanism: str, names: Sequence[str]) -> None:
    """Write each member's data, say in its `node.toml` where they are, and write the agreement."""
    steps = (
        ROUNDS if mechanism == "distributed" else 2 * ROUNDS
    )  # a step of shared noise is a round of its own
    members = ""
    for number, name in enumerate(names):
        source = random.Random(number)  # noqa: S311  # generated data, not secrets
        lines = ["x,y,sex,outcome"]
        for _ in range(RECORDS):
            x, y, sex = source.uniform(-1, 1), source.uniform(-1, 1), source.choice("fm")
            lines.append(f"{x:.6f},{y:.6f},{sex},{'yes' if x + y + source.gauss(0, 0.2) > 0 else 'no'}")
        data = folder / f"{name}.csv"
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = folder / name / "node.toml"
        text = settings.read_text(encoding="utf-8")
        settings.write_text(
            text.replace('# data = "/srv/hansa/data"', f'data = "{data.resolve()}"'), encoding="utf-8"
        )
        members += f'[[members]]\nname = "{name}"\nunits = {RECORDS}\n\n'
    (folder / "league.toml").write_text(
        TERMS.format(members=members, mechanism=mechanism, rounds=ROUNDS, steps=steps, records=RECORDS),
        encoding="utf-8",
    )


def judges(home: Path) -> None:
    """Say in a member's `node.toml` which budget pays for judging models: standard input has the answer to its grant."""
    settings, granted = home / "node.toml", json.load(sys.stdin)["data"]["dataset"]
    text = settings.read_text(encoding="utf-8")
    if text.count("[evaluation]\n") != 1:
        sys.exit(f"{settings} has no place to say which budget pays for judging models")
    settings.write_text(text.replace("[evaluation]\n", JUDGES.format(dataset=granted)), encoding="utf-8")


def verified(folder: Path, run: Path) -> None:
    """Say what was verified, as the auditor's command has found it."""
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    if found["status"] != "done":
        sys.exit(f"the audit ended as {found['status']}")
    sums = json.loads((folder / "recomputed.json").read_text(encoding="utf-8"))["data"]["recomputed"]
    if sums != len((run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()):
        sys.exit(f"{sums} sums were recomputed, and the run has others")
    members = len(list(folder.glob("*/state/ledger.sqlite")))
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    if package["status"] != "done":
        sys.exit(f"the publication was not verified: {package['status']}")
    mirrored = json.loads((folder / "followed.json").read_text(encoding="utf-8"))["data"]
    sys.stdout.write(
        f"Verified: {sums} secure sums of {members} members over TLS, each recomputed; the auditor's own mirror of {mirrored['entries']} "
        f"entries, {mirrored['cosigned']} of them cosigned by {len(mirrored['by'])} members, with signatures, histories, "
        f"sums and budgets of {members} members' ledgers; the published package {run / 'publication'} with its signature, its "
        "proof and its gate.\n"
    )


if __name__ == "__main__":
    if sys.argv[1] == "--verified":
        verified(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "--judges":
        judges(Path(sys.argv[2]))
    else:
        prepare(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

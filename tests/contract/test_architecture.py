"""The rules of import hold, and each one fails when the import that it forbids is added."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "hansa": "shared",
    "hansa_flower": "shared",
    "hansa_client": "client",
    "hansa_server": "server",
    "hansa_simulations": "simulations",
}
LAYERS = "Simulations above server and client, which are strangers, above what all share"
CLI = "The command line is imported by nothing"
TORCH = "In hansa only models may import torch, transformers and peft"
DATA = "hansa itself reads no data and trains nothing"
SECAGG = "Agreements and identities do not know the secure sum"
LEDGER = "Logs do not know what they log"
FLWR = "flwr is imported in four places only"
GRPC = "Whoever serves or follows a log from afar imports grpc, and nobody else"

# Contract that must break: file that gets a line, and the line.
FORBIDDEN = [
    (LAYERS, "hansa/wire.py", "import hansa_client"),
    (LAYERS, "hansa/wire.py", "import hansa_flower"),
    (LAYERS, "hansa_flower/records.py", "import hansa_server"),
    (LAYERS, "hansa/wire.py", "import hansa_server"),
    (LAYERS, "hansa/agreement/__init__.py", "def later():\n    import hansa_simulations"),
    (LAYERS, "hansa_client/__init__.py", "import hansa_server"),
    (LAYERS, "hansa_server/__init__.py", "import hansa_client"),
    (LAYERS, "hansa_client/__init__.py", "import hansa_simulations"),
    (LAYERS, "hansa_server/__init__.py", "def later():\n    from hansa_simulations import simulate"),
    (CLI, "hansa/agreement/__init__.py", "from hansa.cli import main"),
    (CLI, "hansa_simulations/__init__.py", "import hansa.cli.output"),
    (TORCH, "hansa/wire.py", "import torch"),
    (TORCH, "hansa/privacy/__init__.py", "def later():\n    from torch import nn"),
    (TORCH, "hansa/cli/agreement.py", "import transformers"),
    (TORCH, "hansa/server_step/__init__.py", "import peft"),
    (TORCH, "hansa/brand_new_room.py", "import torch.nn"),
    (TORCH, "hansa/secagg/masks.py", "import torch"),
    (TORCH, "hansa/identity/keys.py", "def later():\n    import torch"),
    (DATA, "hansa/wire.py", "import pandas"),
    (DATA, "hansa/models/__init__.py", "from opacus import PrivacyEngine"),
    (DATA, "hansa/models/__init__.py", "import sklearn.metrics"),
    (SECAGG, "hansa/agreement/__init__.py", "from hansa.secagg.ring import Quantiser"),
    (SECAGG, "hansa/canonical.py", "def later():\n    import hansa.protocol"),  # on the way of both
    (SECAGG, "hansa/identity/roster.py", "from hansa.secagg import terms"),
    (LEDGER, "hansa/merkle.py", "from hansa.secagg import commitments"),
    (LEDGER, "hansa/ledger/store.py", "def later():\n    from hansa.secagg.store import FolderStore"),
    (LEDGER, "hansa/ledger/spends.py", "import hansa.protocol"),
    (TORCH, "hansa/ledger/log.py", "import torch"),
    (FLWR, "hansa/ledger/witness.py", "def later():\n    import flwr"),
    (FLWR, "hansa/wire.py", "import flwr"),
    (FLWR, "hansa/secagg/coordinator.py", "def later():\n    import flwr.serverapp"),
    (FLWR, "hansa/identity/__init__.py", "import flwr"),
    (FLWR, "hansa_client/node.py", "def later():\n    from flwr.app import Message"),
    (FLWR, "hansa_server/federation.py", "import flwr.serverapp"),
    (FLWR, "hansa_simulations/__init__.py", "import flwr"),
    (GRPC, "hansa/audit/auditor.py", "def later():\n    import grpc"),
    (GRPC, "hansa/following/mirror.py", "import grpc"),
    (GRPC, "hansa/ledger/log.py", "from google.protobuf import message"),
    (GRPC, "hansa_server/history.py", "import grpc_health"),
    (GRPC, "hansa_client/node.py", "import grpc"),
]

# What the rules must let through.
ALLOWED = [
    ("hansa/models/__init__.py", "import torch, transformers, peft"),
    ("hansa/cli/agreement.py", "def later():\n    import hansa_simulations, hansa_client.node"),
    ("hansa_flower/records.py", "import flwr"),
    ("hansa_client/flower_node/link.py", "import flwr"),
    ("hansa_server/flower_app/__init__.py", "import flwr"),
    ("hansa_simulations/engines/__init__.py", "import flwr"),
    ("hansa_client/__init__.py", "import torch, opacus, pandas"),
]


def copy_of_the_house(folder: Path) -> Path:
    """The packages and the rules, in a folder where nothing else is looked up first."""
    for package, place in PACKAGES.items():
        shutil.copytree(
            ROOT / place / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, str]:
    """Exit status and output of import-linter on a copy."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom importlinter.cli import lint_imports\n"
    ran = subprocess.run(
        [sys.executable, "-c", f"{program}sys.exit(lint_imports(no_cache=True))"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def broken(output: str) -> set[str]:
    """The contracts that the output calls broken."""
    return set(re.findall(r"^(.+) BROKEN(?: \(\d+ ignored imports?\))?\s*$", output, flags=re.MULTILINE))


def add(folder: Path, file: str, line: str) -> None:
    """Append an import to a module of a copy, which is made where it is new."""
    with (folder / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return copy_of_the_house(tmp_path_factory.mktemp("house"))


def test_every_contract_has_a_case_that_breaks_it():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert {contract["name"] for contract in rules["contracts"]} == {name for name, _, _ in FORBIDDEN}


def test_an_untouched_copy_keeps_every_contract(house):
    status, output = lint(house)
    assert status == 0, output
    assert broken(output) == set()
    assert output.count(" KEPT") == len({name for name, _, _ in FORBIDDEN})


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    FORBIDDEN,
    ids=[f"{file}: {line.split()[-1]}" for _, file, line in FORBIDDEN],
)
def test_a_forbidden_import_breaks_its_contract(house, tmp_path, contract, file, line):
    copy = tmp_path / "house"
    shutil.copytree(house, copy)
    add(copy, file, line)
    status, output = lint(copy)
    assert status == 1, output
    assert contract in broken(output), output


def test_imports_that_the_rules_allow_break_nothing(house, tmp_path):
    copy = tmp_path / "house"
    shutil.copytree(house, copy)
    for file, line in ALLOWED:
        assert (copy / file).exists()
        add(copy, file, line)
    status, output = lint(copy)
    assert status == 0, output

"""Models of one's own: admitted by the hash of their source, before any of it runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hansa.agreement.terms import Adapter, CustomModel, Encoder, Terms
from hansa.errors import ModelError
from hansa.models import build_model

TermsMaker = Callable[..., Terms]

SOURCE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self, hidden, classes):
        super().__init__()
        self.hidden = nn.Linear(6, hidden)
        self.out = nn.Linear(hidden, classes)
    def forward(self, table):
        return self.out(torch.tanh(self.hidden(table)))

def net(options, terms):
    return Net(options["hidden"], len(terms.task.labels))

class Mixing(Net):
    def __init__(self, hidden, classes):
        super().__init__(hidden, classes)
        self.norm = nn.BatchNorm1d(classes)
    def forward(self, table):
        return self.norm(super().forward(table))

def mixing(options, terms):
    return Mixing(4, len(terms.task.labels))

def failing(options, terms):
    raise RuntimeError("no such option")

def number(options, terms):
    return 3
"""


class Package:
    """An installed package with models of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "ward_models" / "nets.py"
        self.source.parent.mkdir()
        (self.source.parent / "__init__.py").write_text(
            "raise RuntimeError('a parent was imported too early')\n"
        )
        self.write(SOURCE)
        info = root / "ward_models-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ward-models\nVersion: 1\n")
        names = ("net", "mixing", "failing", "number", "absent")
        (info / "entry_points.txt").write_text(
            "[hansa.models]\n"
            + "".join(f"{name} = ward_models.nets:{name}\n" for name in names)
            + "lost = ward_models.gone:net\ncompiled = math:sqrt\n"
        )

    def write(self, source: str) -> None:
        self.source.write_text(source)

    def admit_parent(self) -> None:
        (self.source.parent / "__init__.py").write_text("")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.read_bytes()).hexdigest()

    @property
    def ran(self) -> bool:
        return self.source.with_name("ran").exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Package(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "ward_models"]:
        del sys.modules[name]


def spec(package: Package, name: str = "net", **changes: Any) -> CustomModel:
    values: dict[str, Any] = {"code_sha256": package.sha256, "options": {"hidden": 5}, **changes}
    return CustomModel(kind="custom", entry_point=name, **values)


def test_the_entry_point_gets_its_options_and_the_terms(package: Package, make_terms: TermsMaker) -> None:
    package.admit_parent()
    built = build_model(make_terms(spec(package)))
    assert built.flat.names == ("hidden.bias", "hidden.weight", "out.bias", "out.weight")
    assert built.flat.shapes == ((5,), (5, 6), (3,), (3, 5))
    assert built.tokenize is None
    assert built.tokenizer_sha256 is None
    assert built.frozen_sha256 == hashlib.sha256(b"").hexdigest()
    assert built.module(table=torch.zeros(4, 6)).shape == (4, 3)


def test_its_initial_weights_are_the_same_each_time(package: Package, make_terms: TermsMaker) -> None:
    package.admit_parent()
    first = build_model(make_terms(spec(package))).initial_vector()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert np.array_equal(build_model(make_terms(spec(package))).initial_vector(), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_source_is_refused_before_it_runs(package: Package, make_terms: TermsMaker) -> None:
    agreed = package.sha256
    package.write(SOURCE + "# one line more\n")
    with pytest.raises(ModelError, match=f"{package.sha256}, and the agreement names {agreed}") as caught:
        build_model(make_terms(spec(package, code_sha256=agreed)))
    assert not package.ran  # nor did the parent package, which would have raised
    assert "Install the version that the members agreed on" in caught.value.what_to_do


def test_a_name_that_nobody_registered(package: Package, make_terms: TermsMaker) -> None:
    with pytest.raises(ModelError, match="no model is called 'unheard'") as caught:
        build_model(make_terms(spec(package, "unheard")))
    assert "hansa.models" in caught.value.what_to_do
    assert "net" in caught.value.what_to_do


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("failing", "the model 'failing' failed: RuntimeError: no such option"),
        ("number", "the model 'number' is a int, not a torch.nn.Module"),
        ("absent", "the model 'absent' failed: AttributeError"),
        ("mixing", "Mixing cannot run on a record alone: Expected more than 1 value"),
    ],
)
def test_what_comes_of_it_is_checked(name: str, said: str, package: Package, make_terms: TermsMaker) -> None:
    package.admit_parent()
    with pytest.raises(ModelError, match=said):
        build_model(make_terms(spec(package, name)))


@pytest.mark.parametrize("name", ["lost", "compiled"])
def test_a_source_that_cannot_be_read_is_refused(name: str, package: Package, make_terms: TermsMaker) -> None:
    with pytest.raises(ModelError, match=r"the source of '.*' cannot be found"):
        build_model(make_terms(spec(package, name)))
    assert not package.ran


def test_it_reads_tables_and_has_no_adapter(package: Package, make_terms: TermsMaker) -> None:
    terms = make_terms(Encoder(kind="encoder", source="x")).model_copy(update={"model": spec(package)})
    with pytest.raises(ModelError, match="a custom model cannot read the text 'note'"):
        build_model(terms)
    with pytest.raises(ModelError, match="lora needs an encoder"):
        build_model(make_terms(spec(package), Adapter(kind="lora")))
    assert not package.ran

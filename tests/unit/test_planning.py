"""`hansa agreement plan`: its numbers against noise that is drawn, its bytes against a league, and what it recommends."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.agreement import Agreement, parse_agreement
from hansa.agreement.writing import agreement_toml
from hansa.cli.app import run
from hansa.errors import ExitStatus, PrivacyParameterError
from hansa.planning import Option, Plan, advise, make_plan, plan_text, upload_bytes
from hansa.planning.text import WIDTH
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.distributed import SharedNoise
from hansa.privacy.events import Spend, poisson_gaussian
from hansa.privacy.randomness import SecretRandomness
from hansa_simulations.bench.secure_league import make_league

UNITS = (400, 300, 200, 100)
DIMENSION = 50


def agreement(units: tuple[int, ...] = UNITS, extra: str = "", **privacy: Any) -> Agreement:
    members = "\n".join(f'[[members]]\nname = "m{i}"\nunits = {n}' for i, n in enumerate(units))
    stated = {
        "mechanism": "local", "epsilon": 1.0, "delta": 1e-5, "clipping_norm": 2.0, "sampling_rate": 0.5, "steps": 8,
    } | privacy  # fmt: skip
    section = "\n".join(
        f"{name} = {json.dumps(value)}" for name, value in stated.items() if value is not None
    )
    rounds = stated["steps"] if stated["mechanism"] == "distributed" else 4
    return parse_agreement(
        f"""
        [task]
        name = "planned"
        labels = ["no", "yes"]
        [data]
        label = "answer"
        features = [{{ kind = "number", name = "x", range = [0.0, 1.0] }}]
        [model]
        kind = "logistic"
        [training]
        rounds = {rounds}
        [privacy]
        {section}
        {extra}
        {members}
        """
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(agreement(), DIMENSION, steps=[8, 32], rates=[0.5, 1.0])


def option(plan: Plan, mechanism: str, steps: int, rate: float) -> Option:
    (found,) = [
        o for o in plan.options if (o.mechanism, o.steps, o.sampling_rate) == (mechanism, steps, rate)
    ]
    return found


def test_every_combination_is_there_and_keeps_the_promise(plan: Plan) -> None:
    assert len(plan.options) == 8
    for one in plan.options:
        assert one.unreachable is None
        assert one.epsilon_colluding is not None
        assert one.epsilon_any is not None
        assert 0.99 <= one.epsilon_colluding <= 1.0
        if one.mechanism == "local":
            assert one.epsilon_any == one.epsilon_colluding
        else:
            assert one.epsilon_any > one.epsilon_colluding


def test_epsilon_against_everyone_is_that_of_one_share(plan: Plan) -> None:
    one = option(plan, "distributed", 8, 0.5)
    assert one.noise_multiplier is not None
    # four members: t = 3, and one of them may collude, so two shares are promised
    share = one.noise_multiplier / math.sqrt(2)
    assert one.share_multiplier == pytest.approx(share)
    spent = epsilon_spent([Spend(poisson_gaussian(0.5, share), 8)], 1e-5)
    assert one.epsilon_any == pytest.approx(spent, rel=1e-6)


def test_noise_of_the_mean_gradient_is_what_draws_have(plan: Plan) -> None:
    """Both mechanisms as they run: shares or whole noise drawn on the grid, summed, and divided by public numbers."""
    one = option(plan, "distributed", 8, 0.5)
    assert one.noise_multiplier is not None
    shared = SharedNoise.fitted(
        members=4, smallest_sum=3, colluding=1, noise_multiplier=one.noise_multiplier, clipping_norm=2.0,
        dimension=DIMENSION, batch=300,
    )  # fmt: skip
    randomness, draws = SecretRandomness(), 40_000
    total = sum(randomness.noise(shared.share_sigma, draws) for _ in UNITS)
    assert np.std(total / (shared.grid.scale * 0.5 * sum(UNITS))) == pytest.approx(one.noise_sd, rel=0.02)

    local = option(plan, "local", 8, 0.5)
    assert local.noise_multiplier is not None
    mean = np.zeros(draws)
    for units in UNITS:
        noise = randomness.noise(shared.grid.sigma(local.noise_multiplier), draws) / shared.grid.scale
        mean += units / sum(UNITS) * noise / (0.5 * units)
    assert np.std(mean) == pytest.approx(local.noise_sd, rel=0.02)


def test_signal_to_noise_is_the_clipping_norm_over_the_length_of_the_noise(plan: Plan) -> None:
    for one in plan.options:
        assert one.noise_sd is not None
        assert one.signal_to_noise == pytest.approx(2.0 / (one.noise_sd * math.sqrt(DIMENSION)))
        assert one.run_signal_to_noise == pytest.approx((one.signal_to_noise or 0) * math.sqrt(one.steps))


def test_shared_noise_is_less_by_the_root_of_the_promised_shares(plan: Plan) -> None:
    for steps in (8, 32):
        for rate in (0.5, 1.0):
            local, shared = option(plan, "local", steps, rate), option(plan, "distributed", steps, rate)
            assert local.noise_sd is not None
            assert shared.noise_sd is not None
            assert local.noise_sd / shared.noise_sd == pytest.approx(math.sqrt(2), rel=0.01)


def test_sums_and_bytes(plan: Plan) -> None:
    assert [o.sums for o in plan.options] == [4, 4, 4, 4, 8, 8, 32, 32]
    for one in plan.options:
        assert one.upload_bytes_per_member == one.sums * upload_bytes(4, DIMENSION)
        assert one.upload_bytes == 4 * (one.upload_bytes_per_member or 0)


@pytest.mark.parametrize(("members", "post_quantum"), [(3, False), (5, False), (12, False), (4, True)])
def test_bytes_are_those_of_a_real_league(members: int, post_quantum: bool) -> None:
    league = make_league(members, 1000, post_quantum=post_quantum)
    league.sum(0)
    costs = league.sum(1).costs
    sent = sum(cost.received_bytes for cost in costs.values()) / members
    assert upload_bytes(members, 1000, post_quantum=post_quantum) == pytest.approx(sent, rel=0.02)


# --- what is not possible ------------------------------------------------------------------------------------


def test_an_agreement_without_a_promise_has_no_plan() -> None:
    with pytest.raises(PrivacyParameterError, match="mechanism = 'none'") as refusal:
        make_plan(agreement(mechanism="none", epsilon=None, delta=None), DIMENSION)
    assert "epsilon" in refusal.value.what_to_do


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": [0]}, "0 steps are outside"),
        ({"rates": [0.0]}, "sampling rate of 0 is outside"),
        ({"rates": [1.5]}, "sampling rate of 1.5 is outside"),
        ({"rates": [math.nan]}, "sampling rate of nan is outside"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PrivacyParameterError, match=told):
        make_plan(agreement(), DIMENSION, **changes)


def test_too_few_members_for_shares_are_told_how_many_would_do() -> None:
    few = make_plan(agreement(colluding=3), DIMENSION, steps=[8], rates=[1.0])
    local, shared = few.options
    assert local.unreachable is None
    assert shared.noise_sd is shared.epsilon_any is shared.upload_bytes is None
    assert "3 of the 3 members of the smallest sum" in (shared.unreachable or "")
    assert "5 members would do" in (shared.unreachable or "")
    enough = make_plan(agreement((100,) * 5, colluding=3), DIMENSION, steps=[8], rates=[1.0])
    assert enough.options[1].unreachable is None
    advice = advise(few)
    assert advice.option == local
    assert "the other mechanism cannot be agreed here" in advice.reason
    assert "not possible [1]" in plan_text(few, advice)


def test_a_model_too_large_for_the_ring_is_not_possible() -> None:
    huge = make_plan(agreement(epsilon=0.05), 10**9, steps=[8], rates=[1.0])
    assert "does not fit the ring" in (huge.options[1].unreachable or "")
    assert huge.options[0].unreachable is None


def test_weights_by_hand_are_not_possible_under_shared_noise() -> None:
    weighted = agreement().derive(
        members=[{"name": f"m{i}", "units": n, "weight": 1.0} for i, n in enumerate(UNITS)]
    )
    local, shared = make_plan(weighted, DIMENSION, steps=[8], rates=[1.0]).options
    assert local.unreachable is None
    assert "members.0.weight" in (shared.unreachable or "")


# --- the recommendation ----------------------------------------------------------------------------------------


def changed(plan: Plan, **numbers: dict[str, Any]) -> Plan:
    """The plan with numbers of whole mechanisms replaced."""
    options = [dataclasses.replace(o, **numbers.get(o.mechanism, {})) for o in plan.options]
    return dataclasses.replace(plan, options=tuple(options))


def test_more_signal_at_the_same_work_is_recommended_with_its_price(plan: Plan) -> None:
    advice = advise(plan)
    assert advice.option == option(plan, "distributed", 8, 0.5)
    assert "1.41 times that of local noise" in advice.reason or "1.42 times" in advice.reason
    assert "8 of them where local noise takes 4" in advice.reason
    assert "against everyone together it is" in advice.reason


def test_nothing_that_works_more_than_agreed_is_recommended(plan: Plan) -> None:
    better = [dataclasses.replace(o, run_signal_to_noise=1e6) if o.epochs > 4 else o for o in plan.options]
    assert advise(dataclasses.replace(plan, options=tuple(better))).option == advise(plan).option


def test_without_a_gain_worth_it_the_cheaper_one_is_recommended(plan: Plan) -> None:
    same = changed(plan, local={"run_signal_to_noise": 9.5}, distributed={"run_signal_to_noise": 10.0})
    assert advise(same).option == option(same, "local", 8, 0.5)


def test_a_limit_against_everyone_is_kept(plan: Plan) -> None:
    advice = advise(plan, epsilon_any=1.0)
    assert advice.option == option(plan, "local", 8, 0.5)
    assert "within 1" in advice.reason
    assert advise(plan, epsilon_any=0.5).option is None
    assert "the least is" in advise(plan, epsilon_any=0.5).reason


def test_nothing_within_reach_is_said(plan: Plan) -> None:
    none = changed(plan, local={"unreachable": "no"}, distributed={"unreachable": "no"})
    assert advise(none).option is None
    assert "Nothing to recommend" in plan_text(none, advise(none))


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_table_is_at_most_100_columns_and_marks_rows(plan: Plan) -> None:
    for shown in (plan, plan.timed(0.123), dataclasses.replace(plan, dimension=110_000_000)):
        lines = plan_text(shown, advise(shown)).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert sum(line.startswith("→ distributed") for line in lines) == 1
        assert sum(line.startswith("= local") for line in lines) == 1
    assert "time" not in plan_text(plan, advise(plan)).splitlines()[3]
    assert plan.timed(0.5).options[0].seconds == 2.0


def test_large_numbers_have_no_exponent(plan: Plan) -> None:
    high = [
        dataclasses.replace(one, signal_to_noise=231.2, run_signal_to_noise=1034.4) for one in plan.options
    ]
    text = plan_text(dataclasses.replace(plan, options=tuple(high)), advise(plan))
    assert "231    1030" in text
    assert "e+03" not in text


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        status = run(["agreement", "plan", *arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    file.write_text(agreement_toml(agreement()), encoding="utf-8")
    status, out, err = called(
        capsys, str(file), "--steps", "8", "--rate", "1", "--dimension", "7", "--format", "json"
    )
    assert (status, err) == (ExitStatus.DONE, "")
    data = json.loads(out)["data"]
    assert data["schema_version"] == 1
    assert data["dimension"] == 7
    assert data["agreed"] == {"mechanism": "local", "steps": 8, "sampling_rate": 0.5}
    assert [one["mechanism"] for one in data["options"]] == ["local", "distributed"]
    assert data["options"][data["recommended"]]["mechanism"] in data["reason"]
    status, out, _ = called(capsys, str(file), "--steps", "8", "--rate", "1", "--epsilon-any", "0.1")
    assert status == ExitStatus.REFUSED
    assert "Nothing to recommend: No option keeps ε against everyone at 0.1" in out
    assert "4 trained weights" in out  # of the model itself


def test_the_command_refuses_what_has_no_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.toml"
    file.write_text(agreement_toml(agreement(mechanism="none", epsilon=None, delta=None)), encoding="utf-8")
    status, out, err = called(capsys, str(file))
    assert (status, out) == (ExitStatus.BAD_INPUT, "")
    assert "promises no privacy" in err
    broken = agreement_toml(agreement()).replace("epsilon = 1.0", "")
    file.write_text(broken, encoding="utf-8")
    status, _, err = called(capsys, str(file))
    assert status == ExitStatus.BAD_INPUT
    assert "privacy.epsilon" in err

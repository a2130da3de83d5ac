"""A clipping norm that adapts: what an agreement may say, what follows from a sum, and that all parties follow alike."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hansa.errors import (
    AgreementError,
    ModelMismatchError,
    PrivacyParameterError,
    ServerStateError,
    UsageError,
)
from hansa.ledger import Adaptation as Entry
from hansa.ledger import Aggregate as Summed
from hansa.ledger import SignedEntry
from hansa.privacy.adaptation import Adaptation, adaptation_of, model_name
from hansa.privacy.charges import charges_of
from hansa.privacy.crosscheck import EVERYWHERE
from hansa.privacy.following import NormRule, times_exp
from hansa.protocol import Aggregate, Derivation, shared_noise, starting_state, sum_terms, update_length
from hansa.secagg import messages as m
from hansa.server_step import ServerState, state_from_message, step
from hansa.wire import from_bytes, to_bytes
from hansa_client.attack.attacking import claim_of
from hansa_client.model import DerivedModel
from hansa_client.training.adapting import AdaptedStep
from hansa_client.training.gradients import GradientEngine
from hansa_simulations import Derivation as Changed
from hansa_simulations.derived import without_mitigation
from hansa_simulations.identities import Identities
from support.federations import Federation
from support.leagues import tables, terms_of
from support.pooling import STEPS, Silent, contributor, frozen, pooled_league

RULE = NormRule(quantile=0.5, rate=0.2, smallest=0.25, largest=4.0, start=1.0)
ADAPTS = Adaptation(1.0, RULE, 0.1)
CLIPPING = {"smallest": 0.2, "largest": 3.0, "quantile": 0.6, "rate": 0.5, "noise_share": 0.1}
AGREEMENT, BUILT = frozen(mitigation={"clipping": CLIPPING})
NAMES = tuple("abc")


# --- what an agreement may say ----------------------------------------------------------------------------


def agreed(**changes: Any):
    """An agreement under distributed noise, whose norm adapts."""
    sections = {
        "mitigation": {"clipping": {**CLIPPING, **changes.pop("clipping", {})}},
        "training": {"rounds": 8},
        "privacy": {"mechanism": "distributed", **changes.pop("privacy", {})},
        **changes,
    }
    return terms_of(**sections)


def test_an_agreement_says_between_which_bounds_its_norm_moves():
    adapts = adaptation_of(agreed().terms)
    assert adapts == Adaptation(1.0, NormRule(0.6, 0.5, 0.2, 3.0, 1.0), 0.1)
    assert agreed().terms_id != agreed(clipping={"rate": 0.4}).terms_id
    assert adaptation_of(terms_of().terms) is None


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"clipping": {"smallest": 4.0}}, "mitigation.clipping.smallest"),
        ({"clipping": {"smallest": 1.5}}, "privacy.clipping_norm"),
        ({"clipping": {"smallest": 0.0}}, "mitigation.clipping.smallest"),
        ({"clipping": {"smallest": 1e-10}}, "mitigation.clipping.smallest"),
        ({"clipping": {"largest": math.inf}}, "mitigation.clipping.largest"),
        ({"clipping": {"quantile": 1.0}}, "mitigation.clipping.quantile"),
        ({"clipping": {"quantile": math.nan}}, "mitigation.clipping.quantile"),
        ({"clipping": {"rate": 0.0}}, "mitigation.clipping.rate"),
        ({"clipping": {"noise_share": 0.6}}, "mitigation.clipping.noise_share"),
        ({"clipping": {"noise_share": 0.0}}, "mitigation.clipping.noise_share"),
        ({"clipping": {"speed": 1.0}}, "mitigation.clipping.speed"),
        ({"privacy": {"mechanism": "local"}}, "mitigation.clipping"),
        ({"privacy": {"mechanism": "none"}}, "mitigation.clipping"),
        ({"privacy": {"clipping": "automatic"}}, "mitigation.clipping"),
        ({"privacy": {"clipping": "per-layer"}}, "mitigation.clipping"),
        ({"privacy": {"rotation": "randomized-hadamard"}}, "mitigation.clipping"),
        ({"privacy": {"sampling": "truncated-poisson", "max_batch_units": 45}}, "mitigation.clipping"),
        ({"publication": {"conditions": [{"kind": "attack"}]}}, "mitigation.clipping"),
        ({"baseline": "pooled"}, "mitigation.clipping"),
        ({"mitigation": {}}, "mitigation"),
    ],
)  # fmt: skip
def test_what_cannot_adapt_is_told_with_its_place(changes: dict[str, Any], place: str):
    with pytest.raises(AgreementError) as refused:
        agreed(**changes)
    assert place in [problem.place for problem in refused.value.problems]


@pytest.mark.parametrize(
    "changes", [{"baseline": "pooled"}, {"baseline": "local-only"}, {"mechanism": "local"}, {"no_dp": True}]
)
def test_the_command_line_says_what_it_cannot_take_away(changes: dict[str, Any]):
    with pytest.raises(UsageError, match="adapts") as refused:
        Changed(**changes).apply(agreed())
    assert "--no-mitigation" in refused.value.what_to_do
    Changed(no_mitigation=True, **changes).apply(agreed())


def test_attacks_say_that_they_know_nothing_of_it():
    with pytest.raises(PrivacyParameterError, match="attacks know nothing"):
        claim_of(AGREEMENT, "a")


def test_it_costs_no_epsilon_and_a_known_factor_of_noise():
    terms, plain = agreed().terms, without_mitigation(agreed()).terms
    assert charges_of(terms, 2.0) == charges_of(plain, 2.0)
    (other, _), noise = pooled_league(), shared_noise(AGREEMENT)
    fixed = shared_noise(other)
    assert noise.grid.dimension == fixed.grid.dimension + 1 == update_length(AGREEMENT)
    factor = noise.mean_gradient_sd(3, 60.0) / fixed.mean_gradient_sd(3, 60.0)
    assert factor == pytest.approx(1 / math.sqrt(0.9), rel=1e-3)


# --- what follows from a sum ------------------------------------------------------------------------------


def test_an_exponential_is_the_same_on_every_machine():
    assert times_exp(1.0, -0.1).hex() == "0x1.cf46d99d52b3ap-1"
    assert times_exp(2.5, 0.125).hex() == "0x1.6a9b85724b340p+1"
    for exponent in (-1.0, -0.3, 0.0, 1e-9, 0.7):
        assert times_exp(3.7, exponent) == pytest.approx(3.7 * math.exp(exponent), rel=4e-16)


@pytest.mark.parametrize("below", [0.0, 0.3, -0.3, 1e9, -1e9])
def test_a_norm_moves_by_its_rate_and_stays_between_its_bounds(below: float):
    norm = RULE.following(1.0, below)
    assert norm == pytest.approx(math.exp(-0.2 * min(max(below, -0.5), 0.5)))
    for _ in range(50):
        norm = RULE.following(norm, below)
    assert norm == {0.0: 1.0, 0.3: 0.25, -0.3: 4.0, 1e9: 0.25, -1e9: 4.0}[below]


def test_a_norm_finds_the_quantile_of_lengths_between_its_bounds():
    lengths = torch.tensor(np.random.default_rng(0).uniform(0.5, 3.5, 400))
    rule = replace(RULE, quantile=0.8)
    found = []
    for bounds in ({}, {"largest": 1.5}):
        adapts = Adaptation(1.0, replace(rule, **bounds), 0.1)
        now, (magnitude,) = adapts.first, adapts.magnitudes
        for _ in range(150):
            step_now = AdaptedStep(adapts, now)
            counted = step_now.counted(lengths, torch.ones(400, dtype=torch.bool), 0.0)
            now = adapts.following(now, counted.tolist(), 400)
            assert abs(float(counted)) <= 400 * magnitude
        found.append(now[0])
    below = (1.5 - lengths / found[0]).clamp(0, 1).mean()
    assert float(below) == pytest.approx(0.8, abs=1e-3)  # the blurred quantile
    assert float((lengths <= found[0]).double().mean()) == pytest.approx(0.8, abs=0.1)
    assert found[1] == 1.5


def test_what_a_unit_counts_for_moves_no_faster_than_its_clipped_gradient():
    """Else the last digit of one float could turn a whole count round, and with it what a neighbour shows."""
    step_now, sound = AdaptedStep(ADAPTS, (0.5,)), torch.ones(1, dtype=torch.bool)
    lengths = torch.linspace(0.0, 2.0, 2001, dtype=torch.float64)
    counts = np.array([float(step_now.counted(one.reshape(1), sound, 0.0)) for one in lengths])
    assert np.abs(np.diff(counts)).max() <= 1.001 * 0.001 / 0.5 / RULE.most * ADAPTS.magnitudes[0]
    whole = np.hypot(counts, lengths.numpy() * step_now.factors(lengths, 0.0).numpy())
    assert whole.max() <= 1 + 1e-12
    assert whole.max() > 0.999


@pytest.mark.parametrize("wrong", [{"quantile": 0.0}, {"start": 5.0}, {"smallest": 1e-10}, {"rate": 2.0}])
def test_a_rule_that_no_agreement_allows_is_refused_as_well(wrong: dict[str, float]):
    with pytest.raises(PrivacyParameterError):
        replace(RULE, **wrong)


@pytest.mark.parametrize("share", [0.0, 0.51, -0.1, math.nan])
def test_counts_take_some_of_the_sensitivity_and_leave_half(share: float):
    with pytest.raises(PrivacyParameterError):
        Adaptation(1.0, RULE, share)


# --- a step -----------------------------------------------------------------------------------------------


def expected_step(weights: np.ndarray, norm: float, at: int) -> tuple[np.ndarray, float]:
    """A step of DP-SGD on everybody's records at this norm, from whole gradients, and the norm that follows."""
    engine, total, below = GradientEngine(BUILT), np.zeros(len(weights)), 0.0
    BUILT.flat.load(BUILT.module, weights)
    for name, held in tables().items():
        (drawn,) = contributor(AGREEMENT, BUILT, name, held)._draws.batches(Silent(at), 1)
        if not len(drawn):
            continue
        gradients = engine.per_record({k: v[drawn] for k, v in held.inputs.items()}, held.labels[drawn])
        flat = np.concatenate([g.flatten(1).double().numpy() for g in gradients], axis=1)
        lengths = np.linalg.norm(flat, axis=1)
        total += (flat * np.minimum(1, norm / lengths)[:, None]).sum(0)
        below += (np.clip(1.5 - lengths / norm, 0, 1) - 0.6).sum()
    moved = norm * math.exp(-0.5 * min(max(below / 60, -0.6), 0.4))
    return weights - 0.5 * total / 60, min(max(moved, 0.2), 3.0)


def test_steps_are_those_of_pooled_training_with_the_same_adaptive_norm():
    state, derive = starting_state(AGREEMENT, BUILT.initial_vector()), Derivation(AGREEMENT)
    terms = sum_terms(AGREEMENT, Identities.ephemeral(NAMES).roster)
    trainers = {name: contributor(AGREEMENT, BUILT, name, held) for name, held in tables().items()}
    weights, norm, norms = np.array(state.weights), 1.0, []
    for at in range(STEPS):
        made = [one.train(state.weights, Silent(at), None, state.adapted) for one in trainers.values()]
        quantiser = terms.vectors["update"].quantiser
        total = quantiser.decode(sum(map(quantiser.encode, made)), 3)
        state = derive(state, Aggregate(at, NAMES, total))
        weights, norm = expected_step(weights, norm, at)
        norms.append(norm)
        assert state.adapted is not None
        # the margin that gradients keep from the norm is one part in a thousand; so may the results differ
        assert state.adapted.tolist() == pytest.approx([norm], rel=5e-3)
        assert np.abs(state.weights - weights).max() < 2e-3
    assert len({round(one, 3) for one in [1.0, *norms]}) == STEPS + 1  # it moved each time
    assert np.abs(weights - BUILT.initial_vector()).max() > 0.05


def test_a_state_keeps_what_has_adapted_and_its_name_says_so():
    state = starting_state(AGREEMENT, BUILT.initial_vector())
    assert state_from_message(from_bytes(to_bytes(state.message))) == state
    weights = state.message.array_hashes["weights"]
    assert state.model_sha256 == model_name(weights, (1.0,)) != model_name(weights, (1.5,))
    other = replace(state, adapted=np.array([1.5]))
    assert state.model_sha256 != other.model_sha256
    plain = replace(state, adapted=None)
    assert plain.model_sha256 == weights
    assert "adapted" not in plain.message.arrays  # digests of runs without it stay what they were
    rule = AGREEMENT.terms.training.server
    for adapted in (None, np.zeros(2)):
        with pytest.raises(ServerStateError, match="what adapts"):
            step(rule, state, np.zeros(len(state.weights)), adapted)
    with pytest.raises(ServerStateError, match="not finite"):
        replace(state, adapted=np.array([np.nan]))


# --- a federation -----------------------------------------------------------------------------------------


def test_members_and_coordinator_follow_alike_and_the_log_shows_from_what(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hansa_client.recording.member_checks", lambda: EVERYWHERE)  # not the slow one
    share = shared_noise(AGREEMENT).share_sigma
    federation = Federation(AGREEMENT, BUILT.initial_vector(), {name: lambda w: w for name in NAMES})
    trainers = {name: contributor(AGREEMENT, BUILT, name, held) for name, held in tables().items()}
    seen: dict[str, list[float]] = {name: [] for name in NAMES}

    class Watched:
        def __init__(self, name: str) -> None:
            self.name = name

        def train(self, weights: Any, randomness: Any, rotation: Any, adapted: Any) -> Any:
            seen[self.name].append(float(adapted[0]))
            return trainers[self.name].train(weights, randomness, rotation, adapted)

    for name in NAMES:
        federation.nodes[name]._training = Watched(name)
    outcome = federation.run()
    assert outcome.stopped_because is None
    assert share > 20
    entries = [SignedEntry.parse(data).entry for data in federation.log.entries()]
    told = [one for one in entries if isinstance(one, Entry)]
    sums = {one.round: one for one in entries if isinstance(one, Summed)}
    adapts, noise = adaptation_of(AGREEMENT.terms), shared_noise(AGREEMENT)
    assert adapts is not None
    now = adapts.first
    for at, one in enumerate(told):
        assert all(norms[at] == now[0] for norms in seen.values())
        counted = [value / (noise.grid.scale * noise.grid.clipping_norm) for value in one.integers]
        now = adapts.following(now, counted, 60.0)
        assert one.quantities == now
        assert one.model_sha256 == sums[one.round].model_sha256
        assert one.aggregate_sha256 == sums[one.round].aggregate_sha256
    assert len(told) == STEPS
    assert outcome.state.adapted is not None
    assert outcome.state.adapted.tolist() == list(now)
    assert len(set(seen["a"])) == STEPS


# --- coordinators that lie --------------------------------------------------------------------------------


class TestAFalseNorm:
    """Nobody is told a norm: who is shown another sum holds another model, by name, though its weights are the same."""

    SUMS = sum_terms(AGREEMENT, replace(Identities.ephemeral(NAMES).roster, auditors={}))

    def model(self) -> DerivedModel:
        return DerivedModel(AGREEMENT, self.SUMS, "r", BUILT.initial_vector(), Derivation(AGREEMENT))

    def manifest(self, state: ServerState, previous: str) -> m.Manifest:
        return m.Manifest.model_validate({
            "terms": "0" * 64, "run": "r", "round": 9, "arrays": {}, "transcript": "0" * 64,
            "contributors": NAMES, "purpose": "update", "step": state.round,
            "model_sha256": state.model_sha256, "previous_round": 0, "previous_manifest_sha256": None,
            "previous_aggregate_sha256": previous, "checkpoint": "", "artifacts": (),
        })  # fmt: skip

    def sums(self, *last: int) -> list[Aggregate]:
        length = update_length(AGREEMENT)
        found = []
        for at, counted in enumerate(last):
            total = np.arange(length, dtype=np.int32)
            total[-1] = counted
            found.append(Aggregate(at, NAMES, total))
        return found

    def test_a_count_that_was_changed_for_one_member_in_a_round_that_it_missed_is_noticed(self):
        true, false = self.sums(4000, 500), self.sums(-4000, 500)
        state, derive = starting_state(AGREEMENT, BUILT.initial_vector()), Derivation(AGREEMENT)
        for aggregate in true:
            state = derive(state, aggregate)
        honest, fooled = self.model(), self.model()
        honest.follow(true)
        fooled.follow(false)
        manifest = self.manifest(state, true[-1].sha256)
        honest.check(manifest)
        # the last sum is the true one, and with one norm for both steps so would the weights be
        assert false[-1].sha256 == true[-1].sha256
        with pytest.raises(ModelMismatchError, match="does not follow from model 0"):
            fooled.check(manifest)
        assert fooled.round == 0  # it asks for every sum anew

    def test_a_manifest_that_names_the_weights_alone_is_refused(self):
        model = self.model()
        model.follow(self.sums(4000))
        state = Derivation(AGREEMENT)(starting_state(AGREEMENT, BUILT.initial_vector()), *self.sums(4000))
        assert state.adapted is not None
        for name in (
            state.message.array_hashes["weights"],
            model_name(state.message.array_hashes["weights"], (1.0,)),
        ):
            named = self.manifest(state, self.sums(4000)[0].sha256).model_copy(update={"model_sha256": name})
            with pytest.raises(ModelMismatchError):
                model.check(named)

    def test_a_sum_without_its_count_is_not_followed(self):
        model, total = self.model(), np.arange(update_length(AGREEMENT) - 1, dtype=np.int32)
        model.follow([Aggregate(0, NAMES, total)])
        assert model.round == 0


def test_an_entry_of_another_length_is_read_as_its_bytes_say():
    entry = Entry(
        at="2026-03-01T12:00:00Z", agreement_id="a" * 64, run="r", round=1, step=0, aggregate_sha256="b" * 64,
        weights_sha256="c" * 64, counted=base64.b64encode((-5).to_bytes(4, "little", signed=True)).decode(),
        adapted=(1.5.hex(),),
    )  # fmt: skip
    assert entry.integers == (-5,)
    assert entry.model_sha256 == model_name("c" * 64, (1.5,))

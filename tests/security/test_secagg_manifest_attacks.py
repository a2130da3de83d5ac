"""A manifest with weaker noise, or anything else that is not the agreement's, tried through a member's own door."""

from __future__ import annotations

import dataclasses

import pytest

from hansa.errors import HansaError, WireError
from hansa.identity import COORDINATOR, Signer, Statement
from hansa.secagg import messages as m
from hansa.secagg.errors import PhaseError, TranscriptError
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, make_league, over_the_wire


def begun(league: SumLeague) -> SumLeague:
    """A league that is about to be asked for its masked vectors."""
    league.prepare()
    league.coordinator.begin(PURPOSE, 0, MODEL)
    return league


def statement_of(message: Message) -> Statement:
    return Statement.parse(message.text(m.SIGNED))


class TestWeakerManifest:
    """A manifest with weaker noise, or anything else that is not the agreement's."""

    def refused(self, league: SumLeague, message: Message) -> HansaError:
        with pytest.raises(HansaError) as caught:
            league.members["member-1"].handle(over_the_wire(message))
        assert league.contributors["member-1"].asked == []
        assert (
            league.members["member-1"].handle(league.pending("member-1", m.Manifest)).kind
            == m.Masked.purpose_name
        )
        return caught.value

    def test_noise_is_the_agreements_and_cannot_be_told_in_a_manifest(self) -> None:
        league = begun(make_league(4, 20))
        honest = league.pending("member-1", m.Manifest)
        weaker = league.as_coordinator(honest, noise_multiplier="0.01")
        assert isinstance(self.refused(league, weaker), WireError)

    def test_terms_with_weaker_noise_have_another_hash(self) -> None:
        league = begun(make_league(4, 20))
        weaker = dataclasses.replace(league.terms, agreement_id="b" * 64)  # the agreement id covers the noise
        honest = league.pending("member-1", m.Manifest)
        assert isinstance(
            self.refused(league, league.as_coordinator(honest, terms=weaker.sha256)), TranscriptError
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"min_members": 4},
            {"threat_model": "honest-but-curious"},
            {"post_quantum": True},
        ],
    )
    def test_every_parameter_is_in_the_hash_of_the_terms(self, change: dict) -> None:
        terms = make_league(4, 20).terms
        assert dataclasses.replace(terms, **change).sha256 != terms.sha256

    @pytest.mark.parametrize(
        "change", [{"length": 21}, {"clip": 2.0}, {"scale": 2.0}, {"guard_bits": 2}, {"noise_sd": 1.0}]
    )
    def test_every_parameter_of_a_vector_is_in_the_hash_of_the_terms(self, change: dict) -> None:
        terms = make_league(4, 20).terms
        vector = terms.vectors[PURPOSE]
        changed = dataclasses.replace(
            vector,
            **{k: v for k, v in change.items() if k == "length"},
            quantiser=dataclasses.replace(
                vector.quantiser, **{"scale": 2.0**20} | {k: v for k, v in change.items() if k != "length"}
            ),
        )
        start = dataclasses.replace(vector, quantiser=dataclasses.replace(vector.quantiser, scale=2.0**20))
        assert (
            dataclasses.replace(terms, vectors={PURPOSE: changed}).sha256
            != dataclasses.replace(terms, vectors={PURPOSE: start}).sha256
        )

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"purpose": "gradients-without-noise"}, TranscriptError),
            ({"run": "another-run"}, TranscriptError),
            ({"round": 2}, PhaseError),
            ({"round": 0}, WireError),
            ({"round": True}, WireError),
            ({"step": -1}, WireError),
            ({"model_sha256": "x"}, WireError),
            ({"transcript": "0" * 64}, TranscriptError),
            ({"contributors": ["member-2", "member-1", "member-3", "member-4"]}, TranscriptError),
            ({"contributors": ["member-1", "member-1", "member-2", "member-3", "member-4"]}, TranscriptError),
            ({"contributors": ["member-1", "member-2", "member-3", "stranger"]}, TranscriptError),
        ],
    )
    def test_other_parameters_are_refused(self, change: dict, error: type[HansaError]) -> None:
        league = begun(make_league(4, 20))
        refused = self.refused(
            league, league.as_coordinator(league.pending("member-1", m.Manifest), **change)
        )
        assert isinstance(refused, error)

    @pytest.mark.parametrize("signer", ["member-2", "stranger"])
    def test_a_manifest_that_the_coordinator_did_not_sign_is_refused(self, signer: str) -> None:
        league = begun(make_league(4, 20))
        value = statement_of(league.pending("member-1", m.Manifest)).value
        key = league.signers.get(signer) or Signer.generate(signer)
        own = Statement.sign(key, m.Manifest.purpose_name, value)
        self.refused(league, Message(m.Manifest.purpose_name, {m.SIGNED: own.line}))
        league = begun(make_league(4, 20))
        claimed = dataclasses.replace(own, signer=COORDINATOR)
        self.refused(league, Message(m.Manifest.purpose_name, {m.SIGNED: claimed.line}))

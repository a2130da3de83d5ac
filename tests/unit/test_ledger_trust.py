"""The keys that an auditor trusts: what is no set of keys, the fingerprint, and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hansa.errors import ExitStatus
from hansa.identity import Signer
from hansa.ledger import NoteSigner, SignatureType, TrustedKeys
from hansa.ledger.errors import TrustedKeysError
from support.audits import AGREEMENT, KEYS, MEMBERS, ROSTER, story
from support.published import report_of, write_report_json

OTHER = Signer.generate("other").public_key


def tree(**changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(KEYS.model_dump())), **changes}


class TestWhatTheyMake:
    def test_the_roster_of_the_agreement_members_in_order(self) -> None:
        assert KEYS.roster == ROSTER
        assert KEYS.roster.sha256 == ROSTER.sha256
        assert list(KEYS.roster.x) == list(MEMBERS)

    def test_whose_word_counts_about_each_log(self) -> None:
        assert KEYS.federation.quorum == 4
        assert [key.text for key in KEYS.federation.witnesses] == list(KEYS.witnesses.values())
        assert {name: policy.log.text for name, policy in KEYS.own_logs.items()} == KEYS.logs
        assert all(policy.quorum == 0 for policy in KEYS.own_logs.values())

    def test_whose_signatures_count_in_entries(self) -> None:
        keyring = KEYS.keyring
        assert set(keyring.agreements) == {AGREEMENT}
        assert keyring.agreements[AGREEMENT].roster_at(0) == ROSTER
        assert keyring.officers == KEYS.officers

    def test_they_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            KEYS.quorum = 1  # type: ignore[misc]


class TestFingerprint:
    def test_it_is_eight_groups_that_follow_from_all_keys(self) -> None:
        assert len(KEYS.fingerprint.split("-")) == 8
        assert KEYS.fingerprint == TrustedKeys.model_validate(tree()).fingerprint

    @pytest.mark.parametrize("place", ["members", "officers"])
    def test_another_key_gives_another_one(self, place: str) -> None:
        other = tree()
        other[place][MEMBERS[2]] = OTHER
        assert TrustedKeys.model_validate(other).fingerprint != KEYS.fingerprint

    @pytest.mark.parametrize(
        "changes",
        [{"quorum": 3}, {"agreement_id": "0" * 64}, {"coordinator": OTHER}, {"auditors": {"a": OTHER}}],
    )
    def test_so_does_anything_else(self, changes: dict[str, Any]) -> None:
        assert TrustedKeys.model_validate(tree(**changes)).fingerprint != KEYS.fingerprint

    def test_so_does_another_order_of_members_which_is_another_roster(self) -> None:
        other = TrustedKeys.model_validate(tree(members=dict(reversed(KEYS.members.items()))))
        assert other.roster.sha256 != ROSTER.sha256
        assert other.fingerprint != KEYS.fingerprint

    def test_it_can_be_computed_from_the_page_alone(self) -> None:
        from hashlib import sha256

        value = {**tree(), "order": list(KEYS.members)}
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digest = sha256(sha256(text).hexdigest().encode()).hexdigest()[:32]
        assert KEYS.fingerprint == "-".join(digest[i : i + 4] for i in range(0, 32, 4))


class TestFiles:
    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        KEYS.write(tmp_path / "keys.json")
        read = TrustedKeys.read(tmp_path / "keys.json")
        assert read == KEYS
        assert list(read.members) == list(MEMBERS)

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"quorum": 0}, "quorum"),
            ({"quorum": 6}, "quorum: 6 of 5 witnesses"),
            ({"quorum": True}, "quorum"),
            ({"agreement_id": "x"}, "agreement_id"),
            ({"members": {}}, "members"),
            ({"extra": 1}, "extra"),
            ({"coordinator": "p256:00"}, "coordinator"),
            ({"coordinator": KEYS.members[MEMBERS[0]]}, "the same key"),
            ({"officers": {**KEYS.officers, MEMBERS[0]: KEYS.members[MEMBERS[0]]}}, "stands for two parties"),
            ({"officers": {**KEYS.officers, "stranger": OTHER}}, "'stranger' is no member"),
            ({"logs": {**KEYS.logs, MEMBERS[0]: KEYS.logs[MEMBERS[1]]}}, "stands for two parties"),
            ({"logs": {MEMBERS[0]: KEYS.federation_log}}, "stands for two parties"),
            ({"logs": {MEMBERS[0]: KEYS.witnesses[MEMBERS[0]]}}, "logs"),
            ({"federation_log": KEYS.witnesses[MEMBERS[0]]}, "federation_log"),
            ({"federation_log": KEYS.federation_log + "A"}, "federation_log"),
            ({"witnesses": {}}, "quorum: 4 of 0 witnesses"),
            ({"auditors": {MEMBERS[0]: OTHER}}, "another's name"),
            ({"members": {"no name": OTHER}}, "members"),
        ],
    )
    def test_what_makes_no_keys_is_told(self, tmp_path: Path, changes: dict[str, Any], what: str) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(tree(**changes)))
        with pytest.raises(TrustedKeysError, match="holds no keys") as caught:
            TrustedKeys.read(path)
        assert what in caught.value.diagnostics()
        assert caught.value.exit_status is ExitStatus.BAD_INPUT

    def test_a_report_is_no_set_of_keys_and_is_called_what_it_is(self, tmp_path: Path) -> None:
        path = write_report_json(report_of(story()), tmp_path)
        with pytest.raises(TrustedKeysError, match="holds no keys") as caught:
            TrustedKeys.read(path)
        assert [str(one) for one in caught.value.problems] == [
            f"{path}: is a report, not keys (the file of keys is called keys.json)"
        ]

    @pytest.mark.parametrize(("extra", "told"), [(3, 3), (10, 10), (11, 11), (45, 11)])
    def test_very_many_problems_are_told_in_few_lines(self, tmp_path: Path, extra: int, told: int) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(tree(**{f"extra-{number}": 1 for number in range(extra)})))
        with pytest.raises(TrustedKeysError) as caught:
            TrustedKeys.read(path)
        assert len(caught.value.problems) == told
        if extra > 10:
            assert str(caught.value.problems[-1]) == f"{path}: has {extra - 10} more"

    def test_one_witness_key_under_two_names(self, tmp_path: Path) -> None:
        """A cosignature does not cover its witness' name: one key could make a quorum of one."""
        first = NoteSigner.generate("hansa.example/a", SignatureType.WITNESS)
        second = NoteSigner("hansa.example/b", first._key, SignatureType.WITNESS)
        path = tmp_path / "keys.json"
        twice = {**KEYS.witnesses, MEMBERS[0]: first.key.text, MEMBERS[1]: second.key.text}
        path.write_text(json.dumps(tree(witnesses=twice)))
        with pytest.raises(TrustedKeysError, match="holds no keys"):
            TrustedKeys.read(path)

    @pytest.mark.parametrize("text", ["", "[]", "{", "null", "\ud800", '{"quorum": NaN}'])
    def test_what_is_no_json_object(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "keys.json"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(TrustedKeysError):
            TrustedKeys.read(path)

    def test_a_member_that_stands_twice(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.json"
        path.write_text(json.dumps(tree())[:-1] + ', "quorum": 1}')
        with pytest.raises(TrustedKeysError, match="is not JSON"):
            TrustedKeys.read(path)

    def test_a_file_that_is_not_there_or_too_large(self, tmp_path: Path) -> None:
        with pytest.raises(TrustedKeysError, match="cannot read"):
            TrustedKeys.read(tmp_path / "none.json")
        with pytest.raises(TrustedKeysError, match="cannot read"):
            TrustedKeys.read(tmp_path)
        (tmp_path / "large.json").write_text(" " * (1024 * 1024 + 1))
        with pytest.raises(TrustedKeysError) as caught:
            TrustedKeys.read(tmp_path / "large.json")
        assert "too large" in caught.value.diagnostics()

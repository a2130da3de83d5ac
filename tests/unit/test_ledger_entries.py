"""Entries: fifteen closed types in one form each, real numbers as text, and signatures that count."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hansa.canonical import canonical_json
from hansa.errors import PrivacyParameterError
from hansa.identity import COORDINATOR, Signer
from hansa.identity.errors import AmendmentError, RevokedError, SignatureError, UnknownSignerError
from hansa.identity.statement import Statement
from hansa.ledger import (
    AmendmentMade,
    BudgetGranted,
    Condition,
    Gate,
    Keyring,
    Release,
    SignedEntry,
    Spending,
    officer_of,
    parse_entry,
    real,
    real_value,
    statement_of,
    utc,
)
from hansa.ledger.errors import EntryError
from hansa.ledger.kinds import Kind
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import EventJson, Spend, poisson_gaussian
from hansa.privacy.records import new_dataset_id
from support.ledgers import (
    AGREEMENT,
    AT,
    DATASET,
    HASH,
    MEMBERS,
    OFFICERS,
    ROSTER,
    SIGNERS,
    amendment,
    keyring,
    one_of_each,
    release,
    signed,
)

EACH = one_of_each()
TYPES = [
    "agreement", "amendment", "membership", "budget", "reservation", "release",
    "abort", "closed", "aggregate", "evaluation", "gate", "publication", "override", "attack", "adaptation",
]  # fmt: skip


def changed(entry: Kind, **changes: object) -> bytes:
    return canonical_json({**json.loads(entry.data), **changes})


class TestEveryType:
    def test_there_are_fifteen(self) -> None:
        assert list(EACH) == TYPES

    @pytest.mark.parametrize("name", TYPES)
    def test_it_survives_its_bytes(self, name: str) -> None:
        entry = EACH[name]
        read = parse_entry(entry.data)
        assert read == entry
        assert type(read) is type(entry)
        assert read.data == entry.data == canonical_json(json.loads(entry.data))
        assert read.sha256 == entry.sha256
        tree = json.loads(entry.data)
        assert (tree["type"], tree["version"]) == (name, 1)

    @pytest.mark.parametrize("name", TYPES)
    def test_it_is_frozen_and_closed(self, name: str) -> None:
        entry = EACH[name]
        with pytest.raises(ValidationError, match="frozen"):
            entry.at = AT  # type: ignore[misc]
        with pytest.raises(EntryError, match="epsilon_so_far"):
            parse_entry(changed(entry, epsilon_so_far="0x1.0p+0"))

    @pytest.mark.parametrize("name", TYPES)
    def test_every_member_must_be_said(self, name: str) -> None:
        tree = json.loads(EACH[name].data)
        for key in tree:
            rest = {other: value for other, value in tree.items() if other != key}
            with pytest.raises(EntryError):
                parse_entry(canonical_json(rest))

    @pytest.mark.parametrize("name", TYPES)
    def test_another_type_of_value_is_refused_nowhere_converted(self, name: str) -> None:
        tree = json.loads(EACH[name].data)
        for key in tree:
            for nasty in (1.5, True, [1], {"a": 1}, "", -1, "1"):
                if nasty == tree[key] or (key == "reason" and isinstance(nasty, str)):
                    continue
                if name == "membership" and key == "reason":
                    continue
                try:
                    read = parse_entry(canonical_json({**tree, key: nasty}))
                except EntryError:
                    continue
                assert isinstance(nasty, str)  # some texts are free
                assert getattr(read, key) == nasty

    @pytest.mark.parametrize("version", [0, 2, "1", None, True])
    def test_an_unknown_version_is_refused(self, version: object) -> None:
        with pytest.raises(EntryError, match="version"):
            parse_entry(changed(EACH["release"], version=version))

    @pytest.mark.parametrize("name", ["", "Release", "spend", None, 1])
    def test_an_unknown_type_is_refused_never_skipped(self, name: object) -> None:
        with pytest.raises(EntryError, match="cannot be read"):
            parse_entry(changed(EACH["release"], type=name))

    @pytest.mark.parametrize(
        "data",
        [b"", b"{}", b"[]", b"null", b"{", b"\xff", b'"release"', b"[" * 100_000, b'{"type":"release"}'],
    )
    def test_bytes_that_are_no_entry(self, data: bytes) -> None:
        with pytest.raises(EntryError):
            parse_entry(data)

    def test_an_error_names_the_place_and_not_the_value(self) -> None:
        with pytest.raises(EntryError, match=r"release\.y_sha256") as caught:
            parse_entry(changed(EACH["release"], y_sha256="secret"))
        assert "secret" not in caught.value.diagnostics()


class TestOneForm:
    DATA = EACH["release"].data

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'{"adjacency"', b'{ "adjacency"'),
            (b'"round":1', b'"round": 1'),
            (b'"round":1', b'"round":1.0'),
            (b'"round":1', b'"round":1e0'),
            (b'"round":1', b'"round":01'),
            (b'"step":0', b'"step":-0'),
            (b'"unit":"patient"', b'"unit":"pat\\u0069ent"'),
            (b'"run":"run-1"', b'"run":"other","run":"run-1"'),
            (b'"hansa":"0.1.0","torch":"2.13.0"', b'"torch":"2.13.0","hansa":"0.1.0"'),
            (b'"count":20,"event"', b'"event":{},"count":20,"event"'),
            (b'"type":"PoissonSampled"', b'"type":"Poisson\\u0053ampled"'),
            (b"}}]", b"}} ]"),
        ],
    )
    def test_another_spelling_of_the_same_values_is_refused(self, old: bytes, new: bytes) -> None:
        assert old in self.DATA
        with pytest.raises(EntryError):
            parse_entry(self.DATA.replace(old, new))

    def test_members_in_another_order_are_refused(self) -> None:
        tree = json.loads(self.DATA)
        backwards = json.dumps(dict(reversed(tree.items())), separators=(",", ":")).encode()
        with pytest.raises(EntryError, match="canonical form"):
            parse_entry(backwards)
        event = tree["spends"][0]["event"]
        tree["spends"][0]["event"] = dict(reversed(event.items()))
        with pytest.raises(EntryError, match="canonical form"):
            parse_entry(json.dumps(tree, separators=(",", ":"), sort_keys=False).encode())

    @pytest.mark.parametrize("padding", [b" ", b"\n", b"\x00", b"{}"])
    def test_nothing_stands_behind_an_entry(self, padding: bytes) -> None:
        with pytest.raises(EntryError):
            parse_entry(self.DATA + padding)

    def test_text_of_any_script_has_one_form(self) -> None:
        entry = EACH["override"].model_copy(update={"reason": 'é λ 🏥 " \\ \n \t \x7f \u2028'})
        entry.__dict__.pop("data", None)
        assert parse_entry(entry.data).data == entry.data
        with pytest.raises(EntryError):
            parse_entry(entry.data.replace("é".encode(), b"\\u00e9"))


class TestReals:
    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_a_number_is_one_text_and_comes_back_exactly(self, value: float) -> None:
        text = real(value)
        assert math.copysign(1, real_value(text)) == math.copysign(1, value)
        assert real_value(text) == value

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_what_is_no_finite_number_has_no_text(self, value: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            real(value)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1.5",
            "0x1.8p0",
            "0x1.8p+0",
            "0X1.8000000000000P+0",
            "0x3.0000000000000p-1",
            "inf",
            "nan",
            "0x1.0p+9999",
            " 0x0.0p+0",
        ],
    )
    def test_other_spellings_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="hexadecimal"):
            real_value(text)

    @given(
        st.recursive(
            st.builds(
                lambda sigma: {"type": "Gaussian", "noise_multiplier": sigma},
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            lambda inner: st.builds(
                lambda rate, event: {"type": "PoissonSampled", "sampling_probability": rate, "event": event},
                st.floats(0, 1),
                inner,
            ),
            max_leaves=3,
        ),
        st.integers(1, 2**53 - 1),
    )
    def test_events_come_back_as_they_were(self, event: EventJson, count: int) -> None:
        try:
            spending = Spending.of(Spend(event, count))
        except ValidationError:
            assert json.dumps(event).count('"type"') > 8  # nested deeper than any event
            return
        entry = release(spends=(spending,))
        read = parse_entry(entry.data)
        assert isinstance(read, Release)
        assert read.spends[0].spend == Spend(event, count)

    def test_epsilon_follows_from_what_the_log_holds(self) -> None:
        spends = [
            Spend(poisson_gaussian(0.1, 2.0), 30),
            Spend({"type": "Gaussian", "noise_multiplier": 5.0}, 4),
        ]
        entry = release(spends=tuple(map(Spending.of, spends)))
        read = parse_entry(entry.data)
        assert isinstance(read, Release)
        assert epsilon_spent([one.spend for one in read.spends], 1e-5) == epsilon_spent(spends, 1e-5)

    def test_an_event_of_another_release_is_kept_and_refused_by_the_accountant(self) -> None:
        spending = Spending.of(Spend({"type": "Quantum", "qubits": 3}, 1))
        read = parse_entry(release(spends=(spending,)).data)
        assert isinstance(read, Release)
        with pytest.raises(PrivacyParameterError, match="not known"):
            epsilon_spent([read.spends[0].spend], 1e-5)

    @pytest.mark.parametrize(
        "event",
        [
            {},
            {"noise_multiplier": "0x1.0000000000000p+0"},
            {"type": 1},
            {"type": "Gaussian", "noise_multiplier": 1.5},
            {"type": "Gaussian", "noise_multiplier": "1.5"},
            {"type": "Composed", "events": [{"type": "Gaussian", "noise_multiplier": 1.5}]},
            {"type": "Composed", "events": [{}]},
            {"type": "Composed", "events": [[1]]},
            {"type": "Gaussian", "count": 2**53},
            {"type": "Gaussian", "σ": 1},
        ],
    )
    def test_what_is_no_event_in_text(self, event: dict) -> None:
        with pytest.raises(ValidationError):
            Spending(event=event, count=1)

    def test_an_event_of_events_of_events_ends_somewhere(self) -> None:
        event: dict = {"type": "NonPrivate"}
        for _ in range(7):
            event = {"type": "Composed", "event": event}
        assert Spending(event=event, count=1).spend.event == event
        with pytest.raises(ValidationError):
            Spending(event={"type": "Composed", "event": event}, count=1)


class TestContent:
    def test_a_dataset_is_named_by_chance_and_a_hash_is_no_name(self) -> None:
        assert len({new_dataset_id() for _ in range(100)}) == 100
        release(dataset_id=new_dataset_id())
        for name in (HASH, "patients-2025", DATASET.upper(), ""):
            with pytest.raises(ValidationError):
                release(dataset_id=name)

    def test_times_are_utc_to_the_second(self) -> None:
        noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
        assert utc(noon) == utc(noon.astimezone(timezone(timedelta(hours=5)))) == AT
        for text in (
            "2026-03-01T12:00:00+00:00",
            "2026-03-01 12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-02-30T12:00:00Z",
            "",
        ):
            with pytest.raises(ValidationError):
                release(at=text)

    def test_a_release_spends_something_and_names_its_software(self) -> None:
        for change in ({"spends": ()}, {"software": {}}, {"rng": ""}, {"round": 0}):
            with pytest.raises(ValidationError):
                release(**change)

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"delta": real(1.0)}, "below 1"),
            ({"delta": real(0.0)}, "above 0"),
            ({"epsilon": real(-1.0)}, "above 0"),
            ({"epsilon": "3.0"}, "hexadecimal"),
            ({"colluding": None}, "together"),
            ({"epsilon_colluding": None}, "together"),
            ({"colluding": 0}, "colluding"),
            ({"rule": {}}, "rule"),
            ({"rule": {"rule": "whatever-fits"}}, "not known"),
            ({"rule": {"rule": "adding", "reservations": 0}}, "divided"),
            ({"rule": {"rule": "adding", "reservations": True}}, "divided"),
            ({"rule": {"rule": "adding", "reservations": 3, "unless": "urgent"}}, "not known"),
            ({"rule": {"rule": "any-of", "rules": [{"rule": "fixed-in-advance"}] * 2}}, "valid by itself"),
            ({"disjoint_from": [DATASET]}, "other datasets"),
            ({"disjoint_from": ["f" * 32] * 2}, "each once"),
            ({"disjoint_from": [HASH]}, "disjoint_from"),
            ({"sequence": 2}, "sequence"),
        ],
    )
    def test_budgets_that_promise_nothing(self, changes: dict, match: str) -> None:
        with pytest.raises(EntryError, match=match):
            parse_entry(changed(EACH["budget"], **changes))

    def test_what_an_abort_spends_is_spent_of_a_dataset(self) -> None:
        with pytest.raises(EntryError, match="of a dataset"):
            parse_entry(changed(EACH["abort"], dataset_id=None))
        with pytest.raises(EntryError, match="for a purpose"):
            parse_entry(changed(EACH["abort"], purpose=None))
        parse_entry(changed(EACH["abort"], dataset_id=None, purpose=None, spends=[]))

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"kind": "curiosity"}, "kind"),
            ({"count": 0}, "count"),
            ({"shared": None}, "together"),
            ({"coalition": 0}, "together"),
            ({"event": {"type": "Gaussian", "noise_multiplier": 1.5}}, "real numbers are text"),
            ({"epsilon": "0x1.0000000000000p+0"}, "epsilon"),
        ],
    )
    def test_reservations_that_mean_nothing(self, changes: dict, match: str) -> None:
        charge = json.loads(EACH["reservation"].data)["charges"][0]
        with pytest.raises(EntryError, match=match):
            parse_entry(changed(EACH["reservation"], charges=[{**charge, **changes}]))

    def test_a_reservation_has_charges_each_of_its_kind(self) -> None:
        charge = json.loads(EACH["reservation"].data)["charges"][0]
        parse_entry(changed(EACH["reservation"], charges=[charge, {**charge, "kind": "evaluation"}]))
        with pytest.raises(EntryError, match="another kind"):
            parse_entry(changed(EACH["reservation"], charges=[charge, charge]))
        with pytest.raises(EntryError, match="charges"):
            parse_entry(changed(EACH["reservation"], charges=[]))

    def test_a_run_is_closed_with_counts_by_purpose(self) -> None:
        parse_entry(changed(EACH["closed"], released={"evaluation": 0, "training": 0}))
        for released in ({"curiosity": 1}, {"training": -1}, {"training": 1.5}, {"training": True}, None):
            with pytest.raises(EntryError, match="released"):
                parse_entry(changed(EACH["closed"], released=released))

    @pytest.mark.parametrize(
        ("verdict", "exempt", "override", "open_"),
        [
            ("pass", False, None, True),
            ("fail", False, None, False),
            ("fail", True, HASH, False),
            ("inconclusive", False, None, False),
            ("inconclusive", True, None, True),
            ("inconclusive", False, HASH, True),
        ],
    )
    def test_a_gate_decides_what_its_conditions_say(self, verdict, exempt, override, open_) -> None:
        gate = EACH["gate"]
        assert isinstance(gate, Gate)
        one = Condition(
            name="x", verdict=verdict, exempt=exempt, override_sha256=override, low=None, high=None
        )
        good = Condition(name="y", verdict="pass", exempt=False, override_sha256=None, low=None, high=None)
        tree = {name: getattr(gate, name) for name in type(gate).model_fields}
        right, wrong = ("open", "closed") if open_ else ("closed", "open")
        assert Gate(**{**tree, "conditions": (good, one), "decision": right}).conditions[1].holds is open_
        with pytest.raises(ValidationError, match="not the one that follows"):
            Gate(**{**tree, "conditions": (good, one), "decision": wrong})

    @pytest.mark.parametrize("name", ["../model", "/model", "a/../b", "a//b", "", ".hidden", "a/", "x" * 201])
    def test_published_files_stay_in_their_folder(self, name: str) -> None:
        with pytest.raises(EntryError):
            parse_entry(changed(EACH["publication"], files={name: HASH}))

    @pytest.mark.parametrize("key", ["log_key", "witness_key", "officer_key"])
    def test_an_agreement_names_keys_of_the_right_kind(self, key: str) -> None:
        tree = json.loads(EACH["agreement"].data)
        others = {tree[other] for other in ("log_key", "witness_key", "officer_key") if other != key}
        for wrong in (*others, "p256:00", "x+00000000+AA==", ""):
            with pytest.raises(EntryError, match=key):
                parse_entry(canonical_json({**tree, key: wrong}))

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"kind": "rumour"}, "kind"),
            ({"correct": 1001}, "more right guesses"),
            ({"guessed_in": 9_501}, "more right guesses"),
            ({"guessed_in": 0, "guessed_out": 0, "correct": 0}, "more right guesses"),
            ({"canaries": 0}, "canaries"),
            ({"confidence": real(1.0)}, "below 1"),
            ({"delta": real(1.0)}, "below 1"),
            ({"delta": real(0.0)}, "above 0"),
            ({"spends": []}, "spends"),
            ({"seed": -1}, "seed"),
            ({"epsilon": real(0.1)}, "epsilon"),
        ],
    )
    def test_attacks_that_cannot_have_been(self, changes: dict, match: str) -> None:
        parse_entry(changed(EACH["attack"], seed=7))
        with pytest.raises(EntryError, match=match):
            parse_entry(changed(EACH["attack"], **changes))

    def test_who_writes_what(self) -> None:
        writers = {name: entry.writer for name, entry in EACH.items()}
        member = {"agreement", "membership", "reservation", "release", "abort", "closed", "attack"}
        assert {name for name, writer in writers.items() if writer == MEMBERS[0]} == member
        assert writers["budget"] == officer_of(MEMBERS[0]) == "hospital-1#privacy-officer"
        assert writers["override"] == MEMBERS[1]
        coordinator = {"amendment", "aggregate", "evaluation", "gate", "publication", "adaptation"}
        assert {name for name, writer in writers.items() if writer == COORDINATOR} == coordinator
        suspended = parse_entry(changed(EACH["membership"], change="suspend"))
        assert suspended.writer == COORDINATOR


class TestSigned:
    @pytest.mark.parametrize("name", TYPES)
    def test_a_signed_entry_survives_its_bytes_and_counts(self, name: str) -> None:
        entry = signed(EACH[name])
        read = SignedEntry.parse(entry.encoded)
        assert read == entry
        keyring().verify(read)
        assert entry.encoded.startswith(EACH[name].data + b"\n")

    def test_the_form_is_a_line_of_json_and_lines_of_names_and_hexadecimal(self) -> None:
        json_line, *lines, rest = signed(EACH["gate"]).encoded.decode().split("\n")
        assert json_line.encode() == EACH["gate"].data
        assert [line.split(" ")[0] for line in lines] == [COORDINATOR, *MEMBERS[:3]]
        assert rest == ""
        statement = Statement(
            "ledger.gate", MEMBERS[0], json_line.encode(), bytes.fromhex(lines[1].split(" ")[1])
        )
        statement.verify(ROSTER, "ledger.gate")

    def test_an_entry_without_signatures_is_read_and_counts_for_nothing(self) -> None:
        bare = SignedEntry.parse(SignedEntry(release()).encoded)
        assert bare.statements == ()
        with pytest.raises(EntryError, match="has not signed"):
            keyring().verify(bare)

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data[:-1],
            lambda data: data + b"\n",
            lambda data: data.replace(b"\n", b"\r\n"),
            lambda data: data.split(b"\n")[0],
            lambda data: data + b"hospital-2\n",
            lambda data: data + b"hospital-2 \n",
            lambda data: data + b"hospital-2 zz\n",
            lambda data: data + b" 00\n",
            lambda data: data + b"hospital-2 " + b"AB" * 70 + b"\n",
            lambda data: data + b"hospital-2 " + b"ab" * 73 + b"\n",
            lambda data: data + b"hospital-2 ab cd\n",
            lambda data: data + b"\xff ab\n",
            lambda data: data + data.split(b"\n")[1] + b"\n",
            lambda data: data.split(b"\n")[0] + b"\nz 00\na 00\n",
            lambda data: b"\n" + data,
        ],
    )
    def test_other_bytes_are_refused(self, change) -> None:
        with pytest.raises(EntryError):
            SignedEntry.parse(change(signed(release()).encoded))

    def test_a_signature_is_of_this_entry_and_for_this_purpose(self) -> None:
        entry = release()
        elsewhere = (
            statement_of(release(2), SIGNERS[MEMBERS[0]]),
            Statement.signed(SIGNERS[MEMBERS[0]], "secagg.masked", entry.data),
            Statement.signed(SIGNERS[MEMBERS[0]], "ledger.reservation", entry.data),
        )
        for statement in elsewhere:
            with pytest.raises(EntryError, match="something else"):
                SignedEntry(entry, (statement,))
            moved = Statement("ledger.release", statement.signer, entry.data, statement.signature)
            with pytest.raises(SignatureError):
                keyring().verify(SignedEntry(entry, (moved,)))

    def test_nobody_signs_twice(self) -> None:
        with pytest.raises(EntryError, match="each once"):
            SignedEntry.sign(release(), SIGNERS[MEMBERS[0]], SIGNERS[MEMBERS[0]])

    def test_an_entry_that_tiles_cannot_hold_is_refused(self) -> None:
        files = {f"{i:03d}-{'x' * 190}": HASH for i in range(300)}
        entry = parse_entry(changed(EACH["publication"], files=files))
        with pytest.raises(EntryError, match="larger than 65535"):
            signed(entry)

    def test_a_full_league_fits(self) -> None:
        names = [f"{'m' * 50}-{i:03d}" for i in range(100)]
        entry = parse_entry(changed(EACH["aggregate"], released=dict.fromkeys(names, HASH), excluded=names))
        approvals = [
            Statement("ledger.aggregate", name, entry.data, bytes(72)) for name in (*names, COORDINATOR)
        ]
        assert len(SignedEntry(entry).with_statements(approvals).encoded) < 65_535


class TestKeyring:
    def test_the_coordinator_cannot_invent_a_spend(self) -> None:
        for entry in (EACH["release"], EACH["reservation"], EACH["abort"], EACH["closed"]):
            with pytest.raises(EntryError, match="'hospital-1' has not signed"):
                keyring().verify(SignedEntry.sign(entry, SIGNERS[COORDINATOR]))

    def test_a_stranger_in_a_members_name_is_no_member(self) -> None:
        with pytest.raises(SignatureError):
            keyring().verify(SignedEntry.sign(release(), Signer.generate(MEMBERS[0])))

    def test_whoever_signs_beside_the_writer_must_be_known_too(self) -> None:
        with pytest.raises(UnknownSignerError):
            keyring().verify(SignedEntry.sign(release(), SIGNERS[MEMBERS[0]], Signer.generate("stranger")))

    def test_only_its_own_officer_grants_a_members_budget(self) -> None:
        budget = EACH["budget"]
        assert isinstance(budget, BudgetGranted)
        imposter = Signer.generate(officer_of(MEMBERS[0]))
        for signer in (SIGNERS[MEMBERS[0]], SIGNERS[COORDINATOR], OFFICERS[MEMBERS[1]]):
            with pytest.raises(UnknownSignerError, match="grants no budget"):
                keyring().verify(SignedEntry.sign(budget, signer))
        with pytest.raises(SignatureError, match="by its officer"):
            keyring().verify(SignedEntry.sign(budget, imposter))
        with pytest.raises(UnknownSignerError):
            Keyring({}).verify(signed(budget))
        with pytest.raises(EntryError, match="has not signed"):
            keyring().verify(SignedEntry(budget))

    @pytest.mark.parametrize("name", ["gate", "publication"])
    def test_a_gate_and_a_publication_need_their_quorum(self, name: str) -> None:
        entry = EACH[name]
        two = SignedEntry.sign(entry, SIGNERS[COORDINATOR], *(SIGNERS[member] for member in MEMBERS[:2]))
        with pytest.raises(EntryError, match="2 members approved"):
            keyring().verify(two)
        three = two.with_statements([statement_of(entry, SIGNERS[MEMBERS[2]])])
        keyring().verify(three)
        members_alone = SignedEntry.sign(entry, *(SIGNERS[member] for member in MEMBERS))
        with pytest.raises(EntryError, match="'coordinator' has not signed"):
            keyring().verify(members_alone)

    def test_an_agreement_that_nobody_here_knows(self) -> None:
        with pytest.raises(EntryError, match="is not known here"):
            keyring().verify(signed(release(agreement_id=HASH)))


class TestAmendments:
    def test_a_revoked_key_counts_up_to_its_amendment_and_not_after(self) -> None:
        change = amendment()
        keys = keyring().amended(change, 10)
        entry = SignedEntry.sign(release(member=MEMBERS[3]), SIGNERS[MEMBERS[3]])
        keys.verify(entry, 0)
        keys.verify(entry, 10)
        for index in (11, 1000):
            with pytest.raises(RevokedError):
                keys.verify(entry, index)
        keyring().verify(entry, 1000)

    def test_a_replaced_key_counts_from_its_amendment_on(self) -> None:
        new = Signer.generate(MEMBERS[3])
        change = amendment(change="replace-key", public_key=new.public_key)
        keys = keyring().amended(change, 10)
        old_key = SignedEntry.sign(release(member=MEMBERS[3]), SIGNERS[MEMBERS[3]])
        new_key = SignedEntry.sign(release(member=MEMBERS[3]), new)
        keys.verify(old_key, 10)
        keys.verify(new_key, 11)
        for entry, index in ((old_key, 11), (new_key, 10)):
            with pytest.raises(SignatureError):
                keys.verify(entry, index)

    def test_an_amendment_survives_its_bytes_with_its_approvals(self) -> None:
        read = parse_entry(amendment().data)
        assert isinstance(read, AmendmentMade)
        assert read.apply(ROSTER, 1).revoked == {MEMBERS[3]}

    def test_too_few_false_or_misplaced_approvals_change_nothing(self) -> None:
        tree = json.loads(amendment().data)
        approvals = tree["approvals"]
        for wrong in (
            {"approvals": dict(list(approvals.items())[:2])},
            {"approvals": {**approvals, MEMBERS[2]: approvals[MEMBERS[1]]}},
            {"sequence": 2},
            {"member": MEMBERS[2]},
            {"roster_sha256": HASH},
        ):
            entry = parse_entry(canonical_json({**tree, **wrong}))
            assert isinstance(entry, AmendmentMade)
            with pytest.raises(AmendmentError):
                keyring().amended(entry, 0)
        with pytest.raises(EntryError, match="not known here"):
            Keyring({}).amended(amendment(), 0)

    def test_amendments_follow_each_other_once(self) -> None:
        keys = keyring().amended(amendment(), 5)
        with pytest.raises(AmendmentError):
            keys.amended(amendment(), 6)
        assert [index for index, _ in keys.agreements[AGREEMENT].rosters] == [0, 6]


@given(st.binary(max_size=400))
def test_any_bytes_are_an_entry_or_a_typed_error(data: bytes) -> None:
    for attempt in (data, EACH["release"].data + b"\n" + data, data + EACH["release"].data):
        try:
            read = SignedEntry.parse(attempt)
        except EntryError:
            continue
        assert read.encoded == attempt


@given(st.data())
def test_a_changed_byte_is_never_another_spelling(data: st.DataObject) -> None:
    """Whatever is accepted is canonical by the definition that signatures use."""
    source = bytearray(EACH[data.draw(st.sampled_from(TYPES))].data)
    for _ in range(data.draw(st.integers(1, 3))):
        source[data.draw(st.integers(0, len(source) - 1))] = data.draw(st.integers(0, 255))
    try:
        entry = parse_entry(bytes(source))
    except EntryError:
        return
    entry.__dict__.pop("data")
    assert entry.data == bytes(source)

"""Writes tests/vectors/secagg/*.json: python tests/vectors/secagg_transcripts.py

Run it only when the protocol changes on purpose; tests/vectors/test_secagg_transcripts.py then says what changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hansa.errors import HansaError
from hansa.identity import COORDINATOR, Statement
from hansa.identity.statement import pack, unpack
from hansa.secagg import messages as m
from hansa.secagg.bundle import bundle, unbundle
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, fixed_league, over_the_wire

FOLDER = Path(__file__).parent / "secagg"
PHASES = ("keys", "shares", "delivery", "masked", "confirm", "unmask")
TRUSTED_PHASES = ("keys", "shares", "masked", "unmask")


def on_paper(message: Message) -> dict[str, Any]:
    """A message as JSON."""
    return {
        "header": message.header.decode(),
        "arrays": {
            name: {"dtype": array.dtype.str, "shape": list(array.shape), "hex": array.tobytes().hex()}
            for name, array in message.arrays.items()
        },
    }


def forgeries(league: SumLeague, request: Message) -> dict[str, Message]:
    """Bad requests in the place of a good one."""
    bad = {
        "another run": league.as_coordinator(request, run="another-run"),
        "other terms": league.as_coordinator(request, terms="0" * 64),
        "a field too many": league.as_coordinator(request, extra=1),
        "signed by a member": signed_by(league, "member-2", request),
        "a signature of another message": with_signature(league, request),
    }
    if request.kind == m.SharesRequest.purpose_name:
        keys = unpack(request.arrays["keys"])
        bad["own keys missing"] = league.as_coordinator(request, {"keys": pack(keys[1:])})
        bad["a member twice"] = league.as_coordinator(request, {"keys": pack([*keys, keys[-1]])})
        bad["too few keys"] = league.as_coordinator(request, {"keys": pack(keys[:2])})
    if request.kind == m.Delivery.purpose_name:
        for name in ("envelopes", "rows", "paths"):
            altered = request.arrays[name].copy()
            altered.reshape(-1)[0] ^= 1
            bad[f"altered {name}"] = league.as_coordinator(request, {name: altered})
    if request.kind == m.Manifest.purpose_name:
        bad["two contributors"] = league.as_coordinator(request, contributors=["member-1", "member-2"])
        bad["without this member"] = league.as_coordinator(request, contributors=["member-2", "member-3"])
        bad["another vector"] = league.as_coordinator(request, purpose="gradient")
        bad["another transcript"] = league.as_coordinator(request, transcript="0" * 64)
    if request.kind == m.Survivors.purpose_name:
        masked = unpack(request.arrays["masked"])
        bad["two survivors"] = league.as_coordinator(request, {"masked": pack(masked[:2])})
        bad["without this member"] = league.as_coordinator(request, {"masked": pack(masked[1:])})
        bad["another binding"] = league.as_coordinator(request, binding="0" * 64)
    if request.kind == m.UnmaskRequest.purpose_name and "confirmations" in request.arrays:
        confirmations = unpack(request.arrays["confirmations"])
        bad["one confirmation short"] = league.as_coordinator(
            request, {"confirmations": pack(confirmations[:2])}
        )
        bad["one confirmation twice"] = league.as_coordinator(
            request, {"confirmations": pack([*confirmations[:2], confirmations[0]])}
        )
    return bad


def signed_by(league: SumLeague, name: str, request: Message) -> Message:
    statement = Statement.parse(request.text(m.SIGNED))
    line = Statement.signed(league.signers[name], statement.purpose, statement.data).line
    return Message(request.kind, {m.SIGNED: line}, request.arrays)


def with_signature(league: SumLeague, request: Message) -> Message:
    statement = Statement.parse(request.text(m.SIGNED))
    other = Statement.sign(league.signers[COORDINATOR], statement.purpose, {"other": True})
    line = Statement(statement.purpose, COORDINATOR, statement.data, other.signature).line
    return Message(request.kind, {m.SIGNED: line}, request.arrays)


def transcript(
    name: str, vanish: dict[str, str], phases: tuple[str, ...], options: dict[str, Any]
) -> dict[str, Any]:
    """One round from cold, as every party saw it, with bad requests to the first member beside the good ones."""
    league = fixed_league(options.pop("n"), 8, label=name, **options)
    rounds: list[dict[str, Any]] = []
    outcome = None
    for phase in phases:
        league.away |= {member for member, when in vanish.items() if when == phase}
        if phase == "masked":
            league.coordinator.begin(PURPOSE, 0, MODEL, checkpoint="checkpoint 1")
        exchange: dict[str, Any] = {"phase": phase, "members": {}, "bad": []}
        for member, request in league.coordinator.requests().items():
            if member in league.away:
                continue
            parts = [over_the_wire(part) for part in unbundle(request)]
            if member == "member-1":
                for part in parts:
                    for what, bad in forgeries(league, part).items():
                        try:
                            league.members[member].handle(bad)
                        except HansaError as error:
                            exchange["bad"].append(
                                {"what": what, "request": on_paper(bad), "code": error.code}
                            )
                        else:
                            raise SystemExit(f"{phase}: {what} was not refused")
            replies = [league.members[member].handle(part) for part in parts]
            exchange["members"][member] = [
                {"request": on_paper(part), "reply": on_paper(reply)}
                for part, reply in zip(parts, replies, strict=True)
            ]
            league.coordinator.receive(member, over_the_wire(bundle(replies)))
        outcome = league.coordinator.close()
        rounds.append(exchange)
    if outcome is None:
        raise SystemExit("the round did not end")
    return {
        "about": "One round of the secure sum from fixed randomness; see tests/vectors/test_secagg_transcripts.py.",
        "label": name,
        "options": {"n": len(league.members), "length": 8, **options},
        "vanish": vanish,
        "terms_sha256": league.terms.sha256,
        "contributions": {who: [float(v) for v in one.values] for who, one in league.contributors.items()},
        "exchanges": rounds,
        "total": [int(v) for v in outcome.total],
        "survivors": list(outcome.survivors),
        "dropped": dict(outcome.dropped),
        "record": json.loads(outcome.record.model_dump_json()),
    }


CASES = {
    "three": ({}, PHASES, {"n": 3}),
    "four-one-vanishes": ({"member-3": "masked"}, PHASES, {"n": 4}),
    "three-trusted": ({}, TRUSTED_PHASES, {"n": 3, "threat_model": "honest-but-curious"}),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (vanish, phases, options) in CASES.items():
        text = json.dumps(transcript(name, vanish, phases, dict(options)), indent=1) + "\n"
        (FOLDER / f"{name}.json").write_text(text)

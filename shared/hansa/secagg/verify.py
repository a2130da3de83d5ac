"""Recomputing a round's sum from its record and the masked vectors, with public keys and nothing else.

A verifier (a member, an auditor) trusts neither the coordinator nor its software: every signature is checked, the
quorum, the commitments behind the opened seeds and the hash of every masked vector; then the sum is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import ValidationError

from hansa.errors import HansaError
from hansa.identity.keys import Signer
from hansa.identity.roster import COORDINATOR
from hansa.identity.statement import Statement
from hansa.secagg import messages as m
from hansa.secagg.dealing import MASK_KEY, SELF_MASK
from hansa.secagg.errors import SumVerificationError
from hansa.secagg.record import RoundRecord
from hansa.secagg.ring import RingVector, SumVector
from hansa.secagg.surplus import proves, take_off
from hansa.secagg.terms import MIN_MEMBERS, StatedTerms, SumTerms
from hansa.secagg.unmasking import RoundFacts, Secrets, aggregate_sha256, is_seed_of, masks_to_remove
from hansa.secagg.workers import MaskWorkers
from hansa.wire import array_sha256


@dataclass(frozen=True)
class VerifiedSum:
    """A sum that was recomputed.

    Attributes:
        manifest: what was summed.
        total: the sum in grid steps, dtype int32.
        survivors: whose vectors are in it.
        excluded: members whose masked vector the coordinator acknowledged with a receipt and left out.
    """

    manifest: m.Manifest
    total: SumVector
    survivors: tuple[str, ...]
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class VerifiedRecord:
    """The signed part of a record, without the sum.

    Attributes:
        manifest: what was summed.
        manifest_sha256: of the bytes that the coordinator signed.
        released: H(y) of each survivor, in order of x.
        excluded: members whose masked vector the coordinator acknowledged with a receipt and left out.
        confirmed: whether the record holds the members' confirmations; none are made where the agreement trusts the
            coordinator.
        facts: what is public about the round.
        secrets: the seeds that were opened; nothing of them is secret any more.
        noise_seeds: of the surplus of survivors' noise, proven.
        removed: how many parts each of them opens; 0 where there are none.
    """

    manifest: m.Manifest
    manifest_sha256: str
    released: Mapping[str, str]
    excluded: tuple[str, ...]
    confirmed: bool
    facts: RoundFacts = field(repr=False)
    secrets: Secrets = field(repr=False)
    noise_seeds: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    removed: int = 0


def verify_sum(
    terms: SumTerms,
    record: RoundRecord,
    masked: Callable[[str], RingVector],
    *,
    receipts: tuple[str, ...] = (),
    workers: MaskWorkers | None = None,
) -> VerifiedSum:
    """Recompute a sum.

    Args:
        terms: the agreement's.
        record: the round's, as published.
        masked: gives a survivor's masked vector, dtype uint32; called once for each.
        receipts: that members kept, beside those in the record.
        workers: processes for large vectors.

    Raises:
        SumVerificationError: the record does not prove the sum that it names; says why.
    """
    try:
        return _verify(terms, record, masked, receipts, workers or MaskWorkers())
    except SumVerificationError:
        raise
    except HansaError as error:
        raise SumVerificationError(f"round {record.round}: {error.cause}") from None


def follows(record: RoundRecord, previous: RoundRecord | None) -> None:
    """Check that a round acknowledges the last one that was finished, its manifest and its sum.

    A coordinator that shows members another sum than the verified one must name it in the next manifest, or name none.

    Args:
        record: of the round.
        previous: of the last finished round of the run; None where this is the first.

    Raises:
        SumVerificationError: it follows from another round, or from another sum.
    """
    manifest = _manifest(record)
    if previous is None:
        _require(manifest.previous_round == 0, "follows from a round that is not there")
        _require(manifest.previous_aggregate_sha256 is None, "follows from a sum that is not there")
        return
    before = Statement.parse(previous.manifest)
    _require(record.run == previous.run and record.terms == previous.terms, "belongs to another run")
    _require(manifest.previous_round == previous.round, "follows from another round")
    _require(manifest.previous_manifest_sha256 == before.sha256, "follows from another manifest")
    _require(
        manifest.previous_aggregate_sha256 == previous.aggregate_sha256,
        "follows from another sum than the last round's",
    )


def _manifest(record: RoundRecord) -> m.Manifest:
    try:
        return m.Manifest.model_validate_json(Statement.parse(record.manifest).data)
    except (ValidationError, HansaError):
        raise SumVerificationError(f"the manifest of round {record.round} cannot be read") from None


def attest(terms: SumTerms, record: RoundRecord, signer: Signer) -> Statement:
    """Say that a sum was recomputed, so that the coordinator may let go of the masked vectors."""
    context = m.Context(terms, record.run)
    return context.state(signer, m.Verified, record.round, aggregate_sha256=record.aggregate_sha256)[1]


def verify_record(terms: StatedTerms, record: RoundRecord) -> VerifiedRecord:
    """Check everything that is signed in a round's record, without the vectors, which are let go after a while.

    Args:
        terms: roster and quorum; an auditor without the agreement takes `sha256` from the record, and then knows only
            that all statements name the same terms.
        record: the round's, as published.

    Raises:
        SumVerificationError: it does not hold together; says why.
    """
    try:
        return _signed(m.Context(terms, record.run), record)
    except HansaError as error:
        raise SumVerificationError(f"round {record.round}: {error.cause}") from None


def _signed(context: m.Context, record: RoundRecord) -> VerifiedRecord:
    terms = context.terms
    _require(record.terms == terms.sha256, "belongs to other terms")

    keys = _statements(context, record.keys, m.Keys, record.round)
    transcript = m.transcript_of(context, record.round, keys)
    signed = Statement.parse(record.manifest)
    manifest = context.said(signed, m.Manifest, COORDINATOR)
    _require(
        manifest.round == record.round and manifest.transcript == transcript,
        "has a manifest of another round",
    )
    contributors = manifest.contributors
    _require(
        contributors == context.in_order(set(contributors) & set(keys)), "names contributors without keys"
    )

    sent = _statements(context, record.masked, m.Masked, record.round)
    survivors = tuple(sent)
    binding = m.binding_of(transcript, signed.sha256)
    _require(all(said.binding == binding for said, _ in sent.values()), "holds vectors of another manifest")
    _require(set(survivors) <= set(contributors), "has survivors that are no contributors")
    least = max(terms.threshold, MIN_MEMBERS)
    _require(len(survivors) >= least, f"is over {len(survivors)} members, {least} are needed")
    if record.confirmations:
        expected = context.confirmation(
            record.round, transcript, signed, {name: said for name, (said, _) in sent.items()}
        )
        context.check_quorum(map(Statement.parse, record.confirmations), expected)

    public = {name: said.public for name, (said, _) in keys.items()}
    m.check_offers(public, post_quantum=any(offer.mask_kem is not None for offer in public.values()))
    x = {name: terms.roster.x[name] for name in keys}
    facts = RoundFacts(transcript, binding, x, public, contributors, survivors)
    secrets = Secrets(
        _opened(record.self_seeds, survivors, facts, SELF_MASK),
        _opened(record.mask_seeds, facts.vanished, facts, MASK_KEY),
    )
    noise_seeds, removed = _surplus(record, {name: said for name, (said, _) in sent.items()}, least)
    return VerifiedRecord(
        manifest,
        signed.sha256,
        {name: said.y_sha256 for name, (said, _) in sent.items()},
        _excluded(context, record, record.receipts, binding, survivors),
        bool(record.confirmations),
        facts,
        secrets,
        noise_seeds,
        removed,
    )


def _surplus(record: RoundRecord, sent: Mapping[str, m.Masked], least: int) -> tuple[dict[str, bytes], int]:
    """The opened seeds of noise, each proven by the end of a chain that its member signed, and how many parts they open.

    Who knows the terms knows how many parts so many survivors are to open. From signatures alone it follows that all opened as
    many, and no more than survivors stand above the quorum.
    """
    seeds = {name: bytes.fromhex(seed) for name, seed in record.noise_seeds.items()}
    _require(set(seeds) <= set(sent), "opens noise of somebody whose vector is not in the sum")
    if not seeds:
        return {}, 0
    name, seed = next(iter(seeds.items()))
    depths = range(1, len(sent) - least + 1)
    removed = next((d for d in depths if proves(seed, d, sent[name].noise_end_sha256)), 0)
    _require(
        removed > 0, f"opens a seed of noise that {name!r} did not sign, or more noise than survivors allow"
    )
    for name, seed in seeds.items():
        _require(
            proves(seed, removed, sent[name].noise_end_sha256),
            f"opens a seed of noise that {name!r} did not sign",
        )
    return seeds, removed


def _verify(
    terms: SumTerms,
    record: RoundRecord,
    masked: Callable[[str], RingVector],
    receipts: tuple[str, ...],
    workers: MaskWorkers,
) -> VerifiedSum:
    context = m.Context(terms, record.run)
    signed = _signed(context, record)
    facts, survivors = signed.facts, signed.facts.survivors
    _require(signed.confirmed or not terms.confirmed, "holds no confirmations")
    _require(len(survivors) >= terms.floor, f"is over {len(survivors)} members, {terms.floor} are needed")
    m.check_offers(facts.keys, post_quantum=terms.post_quantum)
    vector_terms = terms.vectors.get(signed.manifest.purpose)
    if vector_terms is None:
        raise SumVerificationError(f"round {record.round} sums what the agreement does not name")
    total = workers.empty(vector_terms.length)
    total.fill(0)
    for name, y_sha256 in signed.released.items():
        vector = masked(name)
        fits = vector.dtype == np.uint32 and vector.shape == total.shape
        _require(
            fits and array_sha256(vector) == y_sha256,
            f"the masked vector of {name!r} is not the signed one",
        )
        np.add(total, vector, out=total)
    try:
        pads = {
            gone: {name: bytes.fromhex(pad) for name, pad in sent.items()}
            for gone, sent in record.pads.items()
        }
    except ValueError:
        raise SumVerificationError("a pad is not hexadecimal") from None
    workers.add_masks(total, *masks_to_remove(facts, signed.secrets, pads))
    parts = vector_terms.parts
    due = 0 if parts is None else parts.removed(len(survivors))
    _require(
        not signed.noise_seeds or signed.removed == due,
        "opens other parts of noise than its survivors call for",
    )
    take_off(total, vector_terms, signed.noise_seeds.values(), due)
    decoded = vector_terms.quantiser.decode(total, len(survivors))
    _require(
        aggregate_sha256(decoded) == record.aggregate_sha256, "names a sum that is not the sum of its vectors"
    )
    left_out = _excluded(context, record, (*record.receipts, *receipts), facts.binding, survivors)
    return VerifiedSum(signed.manifest, decoded, survivors, left_out)


def _statements(
    context: m.Context, lines: tuple[str, ...], model: type[m.S], number: int
) -> dict[str, tuple[m.S, Statement]]:
    return context.said_each([Statement.parse(line) for line in lines], model, number)


def _opened(seeds: dict[str, str], names: tuple[str, ...], facts: RoundFacts, kind: str) -> dict[str, bytes]:
    _require(set(seeds) == set(names), f"does not open exactly the {kind} seeds that its survivors call for")
    opened = {name: bytes.fromhex(seeds[name]) for name in names}
    for name, seed in opened.items():
        _require(
            is_seed_of(facts.keys[name], name, seed, kind),
            f"opens a {kind} seed that {name!r} did not commit to",
        )
    return opened


def _excluded(
    context: m.Context,
    record: RoundRecord,
    receipts: tuple[str, ...],
    binding: str,
    survivors: tuple[str, ...],
) -> tuple[str, ...]:
    had = set()
    for line in receipts:
        receipt = context.said(Statement.parse(line), m.Receipt, COORDINATOR)
        if receipt.round == record.round and receipt.binding == binding:
            had.add(receipt.member)
    return tuple(name for name in context.terms.roster.x if name in had and name not in survivors)


def _require(fits: bool, problem: str) -> None:  # noqa: FBT001  (a condition, not a switch)
    if not fits:
        raise SumVerificationError(f"the record {problem}")

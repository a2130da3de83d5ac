"""What an audit report says in sentences: plain, one place for the page and for JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from hansa.audit.report.promises import Budget, Mechanism
from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter, Rule
from hansa.report import words as plain
from hansa.report.statement import unprotected

NO_STATEMENT = "No guarantee is stated, because this audit failed. What follows was read from entries before the first broken one."
UNKNOWN_PURPOSE = "unknown"
FLAVOUR = (
    "(ε, δ)-differential privacy, composed as privacy loss distributions within a run and by the rule of the grant "
    "between runs"
)
LEVEL = (
    "At each member, for each unit of its own data (in the literature: inter-silo record-level differential privacy). "
    "It holds against everyone outside that member, the coordinator and the other members among them."
)
SUMS = (
    "Vectors of 32-bit integers, summed modulo 2^32 under pairwise and self masks: what a member sends is its noisy "
    "vector under a mask. The log holds the hash of what was sent, and none of what is under the mask."
)
ACROSS_MEMBERS = (
    "A person with data at k members may lose up to k times the ε of one: budgets of different members are not "
    "added up here, since nobody knows who is where."
)
METHODS: Mapping[str, str] = {
    "rdp": "Rényi differential privacy, a coarser way to add up losses that never gives less than the truth; an ε of "
    "record above its answer would be wrong",
    "sum-attack": "what an attacker who adds up all releases of a run and compares the sum with a threshold would learn, "
    "which is never more than the truth; an ε of record below it would be wrong",
    "prv": "privacy random variables as Opacus computes them, as fine as the method of record; an ε of record that "
    "differs by more than the errors of both would be wrong",
}
MODEL = (
    "The ε of a member rests on that member's own software, noise and clipping, and on nobody else being honest.",
    "That single vectors stay hidden in sums rests on at least the quorum of members following the protocol.",
    "That no two histories were shown rests on the members that cosigned the newest checkpoint.",
    "All of it rests on the public keys having been compared with their owners over another channel.",
)
KEYS_BESIDE = (
    "The keys were not compared with anybody: they lay beside the logs, and whoever made up the logs made up the keys too. "
    "Until their fingerprint is compared with the members over another channel, this page shows only that the logs fit "
    "together."
)
LIMITS = (
    "A member that lies about its data, noise or clipping is not detected by any log; it can shift a sum by a bounded "
    "amount.",
    "Masks rest on X25519 unless the agreement adds ML-KEM: recorded traffic may be opened one day. The noise under "
    "them stays.",
    "When and how long a member worked can be seen on the network, beyond what padding hides.",
)
SIMULATED = (
    "These logs come from a simulation: one machine held all keys, so that signatures and cosignatures prove nothing about "
    "separate parties."
)
NOT_ATTACKED = (
    "Not measured. No attack on a model (membership inference, canaries) is recorded in these logs, so that there is no "
    "lower bound on ε from experience. The upper bounds above do not need one."
)
ATTACKED = (
    "Members attacked their own trainers with canaries, which are nobody's data. A lower bound that holds at the confidence beside "
    "it is no proof of the claim, whose upper bound does not need one; a contradiction refutes it. The bounds were computed "
    "from the counts that each member signed."
)
REFUTED = (
    "An attack contradicts the stated ε: rely on no guarantee of that member until its trainer is repaired."
)
UNTOLD: Mapping[str, tuple[str, ...]] = {
    "identity": (
        "purpose, description of the data and persons to contact: they stand in the agreement with this id, which is "
        "not in the logs",
        "the commit that the software was built from: members state versions and the hash of their pinned packages",
    ),
    "guarantee": (
        "how many units each member holds: members publish a weight, never a count",
        "whether δ is small against the number of units: compare it with the size of the smallest dataset",
    ),
    "mechanism": (
        "the clipping norm and the server's optimiser: the agreement fixes them, and no entry repeats them",
        "whether noise was added as stated: it happens inside a member's walls",
    ),
    "coverage": (
        "reads of the data that released nothing, such as a check before signing: what they read "
        "stays inside a member's walls",
        "which public data and which public model training began with: see the agreement",
    ),
    "composition": (
        "releases of the same data outside Hansa: no log of a federation can know of them",
        "members whose own logs were not given: only what they did in this federation is seen",
    ),
    "trust": (
        "how keys are kept, how machines are protected, and who has tested them",
        "TLS on the wire, attestation of hardware, side channels",
    ),
    "utility": ("the quality of the model on anybody's private data, unless an evaluation is listed here",),
}


def sample(mechanism: Mechanism) -> str:
    """How a release drew its units, in a table's cell."""
    if mechanism.sampling_rate is None:
        return "all records"
    rate = plain.plain(mechanism.sampling_rate)
    if mechanism.largest_batch is None or mechanism.most_units is None:
        return rate
    return (
        f"{rate}, cut to {mechanism.largest_batch:,} of at most {plain.counted(mechanism.most_units, 'unit')}"
    )


def statement(budgets: Sequence[Budget]) -> str:
    """The promise in one sentence."""
    if not budgets:
        return "No grant was given to this audit, so that no limit can be stated."
    units = plain.joined(sorted({f"{one.unit}" for one in budgets}))
    epsilons = {one.limits[0].epsilon for one in budgets}
    deltas = {one.limits[0].delta for one in budgets}
    few = {(limit.against, limit.epsilon) for one in budgets for limit in one.limits[1:]}
    second = "".join(
        f", and ε ≤ {plain.epsilon(epsilon)} against {against}" for against, epsilon in sorted(few)
    )
    whom = f" against everyone{second}," if few else ""
    return (
        f"Every {units} at every member whose log was given: ε ≤ {plain.epsilon(max(epsilons))}{whom} at "
        f"δ ≤ {plain.plain(max(deltas))} over the whole life of its dataset, {budgets[0].adjacency} adjacency."
    )


def unit(budget: Budget) -> str:
    """What is protected, with the most records that are one, where that says more than its name."""
    if budget.unit == "record" and budget.max_records_per_unit == 1:
        return budget.unit
    return f"{budget.unit}, at most {plain.counted(budget.max_records_per_unit, 'record')}"


def elsewhere(runs: Sequence[str]) -> str:
    """Of runs whose sums are in no log that was given."""
    names = plain.joined([plain.short_id(run) for run in runs])
    return (
        f"No sum of {'run' if len(runs) == 1 else 'runs'} {names} is in a federation's log that was given. The sums may be in "
        "another federation's log: that a release is in none of these says nothing about whether it was lost, and it "
        "costs the same."
    )


def models(count: int) -> str:
    """What the models that followed from sums amount to."""
    if count == 0:
        return "No model that follows from a sum is in the logs that were given."
    if count == 1:
        return "1 model followed from these sums; the ε above covers it."
    return (
        f"{plain.counted(count, 'model')} followed from these sums. Every one of them may be kept and compared with the "
        "others: the ε above covers all of them together."
    )


def attendance(sums: int, rounds: int, failed: int, missed: Sequence[str]) -> str:
    """Who was in how many sums of a run.

    Args:
        sums, rounds, failed: how many, of the run.
        missed: who was not in all of its sums, in words.
    """
    if sums == 0:
        told = f"{failed} of them failed" if failed else "they may be in another federation's log"
        return f"No sum of {plain.counted(rounds, 'round')} is in a federation's log that was given; {told}."
    if sums == rounds and not missed:
        return f"Every member is in every one of {plain.counted(rounds, 'round')}."
    return (
        f"{plain.counted(sums, 'sum')} in {plain.counted(rounds, 'round')}; "
        f"{'; '.join(missed) or 'every member is in every sum'}."
    )


def methods(checks: Mapping[str, int], passed: Mapping[str, int]) -> tuple[str, ...]:
    """Who looked at ε beside the accountant of record, how, and how often.

    Args:
        checks: by method, of the ε of runs.
        passed: every check that the audit made and that held.
    """
    lines = []
    for name, count in checks.items():
        everywhere = passed.get(f"ε cross-checked by {name}", 0)
        more = f"; {everywhere:,} with those that the run's report claims" if everywhere > count else ""
        lines.append(
            f"{name}: {METHODS.get(name, 'another accountant')}. It looked at {count:,} ε of runs{more}."
        )
    return tuple(lines)


def rule(value: Rule) -> str:
    """By which runs add up."""
    match value:
        case FixedInAdvance():
            return "all runs were fixed before the first; exact composition"
        case Adding(reservations=1):
            return "one run, composed exactly, and a second would be refused; it costs what was reserved, finished or not"
        case Adding(reservations=most):
            return f"at most {most} runs, each with an equal part of δ; their ε add up"
        case RenyiFilter(order=order):
            return f"a Rényi filter of order {order}: runs may be chosen after seeing the outputs of others"
        case AnyOf(rules=rules):
            return "any of these, each with an equal part of δ: " + "; or ".join(map(rule, rules))
        case _:
            return "a rule that this report has no words for"


def noise(coalition: int) -> str:
    """Where noise is added."""
    if coalition == 0:
        return "by each member for itself, before masking"
    others = plain.counted(coalition, "other member")
    return f"a share from each member, before masking; the shared number holds while at most {others} collude"


def dropout(members: int, quorum: int) -> str:
    """What happens when members vanish."""
    return (
        f"A round goes on while at least {quorum} of {members} members are there, or more where the agreement says so. "
        "Who vanishes after its release is charged all the same; a round that ends without a sum is never repeated "
        "under the same masks, and a retry is charged anew."
    )


def not_protected(units: Collection[str]) -> tuple[str, ...]:
    """What nothing protects."""
    said = [line for unit in sorted(units) or ["record"] for line in unprotected(unit)]
    return (
        *dict.fromkeys(said),
        "Names, sizes and times in these logs, and the hashes of what was sent, are visible to whoever reads them.",
        "What a member's own people see inside its walls.",
    )


def several_budgets(member: str, count: int, epsilon: float, delta: float) -> str:
    """What budgets of one member allow together."""
    return (
        f"{member}: {count} budgets together allow ε = {plain.epsilon(epsilon)} at δ = {plain.plain(delta)} to a unit "
        "that is in all of the datasets that were not declared disjoint."
    )


def amendment(change: str, member: str, reason: str) -> str:
    """A change of keys."""
    what = {"revoke": f"the key of {member} was revoked", "replace-key": f"{member} has another key"}[change]
    return f"{what}: {reason}" if reason else what


def membership(change: str, member: str, reason: str) -> str:
    """A member comes, goes, or is suspended."""
    verb = {"join": "joins", "leave": "leaves", "suspend": "is suspended", "resume": "takes part again"}[
        change
    ]
    return f"{member} {verb}: {reason}" if reason else f"{member} {verb}"

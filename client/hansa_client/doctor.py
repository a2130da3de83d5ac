"""What a member's engineer looks at on day one: everything that a node needs, each with what is wrong and what to do.

A check never raises and never changes anything; what it finds stays with the member.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from hansa.errors import HansaError, ProblemsError
from hansa.identity.certificates import check_own_certificate
from hansa.identity.link_key import read_link_key
from hansa.identity.pem import read_certificate, read_revocations
from hansa_client.accepted import accepted_in, check_keys
from hansa_client.node_file import NodeHome
from hansa_client.node_ledger import ledger_to_read

Verdict: TypeAlias = Literal["good", "look", "wrong"]

LEAST_DISK_BYTES = 1024**3
MOST_SKEW_S = 5.0  # Flower takes a node's signature within half a minute
SOON_DAYS = 30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: it is.
        verdict: ``wrong`` keeps the node from taking part, ``look`` will or may.
        found: in words.
        remedy: what to do about it.
    """

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """The check as plain JSON values."""
        return asdict(self)


def examine(home: NodeHome, probe: Callable[[], float | None]) -> Iterator[Check]:
    """Look at everything.

    Args:
        home: of the node.
        probe: reaches the SuperLink, and says how far its clock is ahead; raises `LinkError`.
    """
    yield from _tried("keys", lambda: _keys(home))
    yield from _tried("certificate", lambda: _certificate(home))
    yield from _tried("agreements", lambda: _agreements(home))
    if home.settings.role == "member":
        yield from _tried("budget", lambda: _budget(home))
        yield from _tried("evaluation", lambda: _evaluations(home))
    yield from _tried("data", lambda: _data(home))
    yield _disk(home)
    yield _versions()
    yield _device(home)
    yield from _tried("superlink", lambda: _superlink(home, probe))


def _tried(what: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except HansaError as error:
        found = [f"{error.code}: {error.cause}"]
        if isinstance(error, ProblemsError):
            found += map(str, error.problems)
        yield Check(what, "wrong", "; ".join(" ".join(one.split()) for one in found), error.what_to_do)


def _keys(home: NodeHome) -> Iterator[Check]:
    home.signer()
    read_link_key(home.link_key)
    if home.settings.role == "member":
        home.log_signer(), home.witness_signer(), home.officer()
        from hansa.secagg import Seal

        Seal.load(home.sealing_key)
    yield Check("keys", "good", "all are there, and readable by their owner alone")


def _certificate(home: NodeHome) -> Iterator[Check]:
    certificate, revocations = read_certificate(home.certificate), read_revocations(home.revocations)
    now = datetime.now(UTC)
    check_own_certificate(
        certificate,
        home.signer(),
        authority=read_certificate(home.authority),
        revocations=revocations,
        at=now,
    )
    left = (certificate.not_valid_after_utc - now).days
    if left < SOON_DAYS:
        yield Check("certificate", "look", f"expires in {left} days", "have the authority issue another")
    else:
        yield Check("certificate", "good", f"valid for {left} days")


def _agreements(home: NodeHome) -> Iterator[Check]:
    accepted = accepted_in(home)
    if not accepted:
        yield Check("agreements", "look", "none was accepted", "hansa node accept FROZEN --keys keys.json")
    for one in accepted:
        check_keys(home, one.agreement, one.keys)
        problems = home.settings.policy.problems(one.agreement) if home.settings.role == "member" else []
        name = one.agreement.agreement_id[:16]
        if problems:
            yield Check(
                "agreements", "wrong", f"{name}: {'; '.join(map(str, problems))}", "see [policy] in node.toml"
            )
        else:
            yield Check("agreements", "good", f"{name}: {one.agreement.terms.task.name}")


def _budget(home: NodeHome) -> Iterator[Check]:
    with ledger_to_read(home) as ledger:
        granted = ledger.granted
        limit, delta = float.fromhex(granted.epsilon), float.fromhex(granted.delta)
        yield Check("budget", "good", f"ε = {limit:g} was granted at δ = {delta:g}; see `hansa node budget`")


def _evaluations(home: NodeHome) -> Iterator[Check]:
    """Whether the gate's bound on ε can hold with the budget that evaluations are charged to."""
    from hansa.fairness.agreed import agreed_epsilon

    for one in accepted_in(home):
        terms = one.agreement.terms
        held_out = terms.evaluation is not None and terms.evaluation.units == "held-out"
        if not (held_out and terms.published and terms.evaluation and terms.privacy.epsilon):
            continue
        if home.settings.evaluation.dataset_id is not None:
            yield Check("evaluation", "good", "units that judge have a budget of their own")
            continue
        yield Check(
            "evaluation",
            "look",
            f"units that judge are charged with those that train, up to ε = {terms.privacy.epsilon:g} and "
            f"{terms.evaluation.epsilon:g} together, and the gate lets at most {agreed_epsilon(terms):g} through",
            "grant a second budget (hansa node grant --disjoint-from), and name it under [evaluation] in node.toml",
        )


def _data(home: NodeHome) -> Iterator[Check]:
    data = home.settings.data
    if data is None:
        yield Check("data", "wrong", "node.toml names none", 'data = "/srv/hansa/data"')
    elif not (home.folder / data).exists():
        yield Check("data", "wrong", f"{home.folder / data} is not there", "correct `data` in node.toml")
    else:
        yield Check("data", "good", f"{home.folder / data}; `hansa node check` reads them")


def _disk(home: NodeHome) -> Check:
    free = shutil.disk_usage(home.folder).free
    if free < LEAST_DISK_BYTES:
        return Check(
            "disk",
            "wrong",
            f"{free / 1e9:.1f} GB are free",
            "make room: ledgers must be written before anything is sent",
        )
    return Check("disk", "good", f"{free / 1e9:.0f} GB are free")


def _versions() -> Check:
    found = []
    for package in ("hansa", "flwr", "torch", "opacus"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            return Check("versions", "wrong", f"{package} is not installed", "pip install 'hansa[client]'")
    return Check("versions", "good", ", ".join(found))


def _device(home: NodeHome) -> Check:
    import torch

    wanted = home.settings.performance.device
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check(
            "device", "good", f"{torch.cuda.get_device_name()}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        )
    if wanted.startswith("cuda"):
        return Check(
            "device",
            "wrong",
            f"node.toml asks for {wanted}, and there is none",
            "correct `device` under [performance], or the driver",
        )
    return Check("device", "good", f"cpu, {torch.get_num_threads()} threads")


def _superlink(home: NodeHome, probe: Callable[[], float | None]) -> Iterator[Check]:
    address = home.superlink
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    skew = probe()
    yield Check("superlink", "good", f"{address} answers" + (f", through {proxy}" if proxy else ""))
    if skew is None:
        return
    if abs(skew) > MOST_SKEW_S:
        yield Check(
            "clock",
            "wrong",
            f"is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the SuperLink's",
            "set it, say by NTP",
        )
    else:
        yield Check("clock", "good", "agrees with the SuperLink's")

"""A second verifier, written from docs/for-auditors.md alone: python independent_verifier.py LEDGERS KEYS

It uses the standard library and `cryptography`, and nothing of Hansa. It raises at the first thing that is wrong, and
answers an upper bound of ε by member and dataset.
"""

import json
import math
import sys
from base64 import b64decode
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def require(holds, what):
    if not holds:
        raise ValueError(what)


def sha(data):
    return sha256(data).hexdigest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verify(key, purpose, data, signature):
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(key[5:]))
    signed = b"hansa/v1/" + purpose.encode() + b"\0" + data
    point.verify(bytes.fromhex(signature), signed, ec.ECDSA(hashes.SHA256()))
    require(decode_dss_signature(bytes.fromhex(signature))[1] <= ORDER // 2, "the other s of a signature")


def root_of(leaves):
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def read_checkpoint(note, log_key, witnesses=(), quorum=0):
    """Size and root of a note that its log has signed and enough witnesses have cosigned."""
    text, lines = note.split("\n\n")
    text, keys, signed = text + "\n", {}, []
    for name, key_hash, key in (vkey.split("+", 2) for vkey in (log_key, *witnesses)):
        keys[name, bytes.fromhex(key_hash)] = b64decode(key)
    for _, name, encoded in (line.split(" ") for line in lines.splitlines()):
        data = b64decode(encoded)
        if (name, data[:4]) in keys:
            kind, key = keys[name, data[:4]][0], keys[name, data[:4]][1:]
            time = f"cosignature/v1\ntime {int.from_bytes(data[4:12], 'big')}\n" if kind == 4 else ""
            Ed25519PublicKey.from_public_bytes(key).verify(data[12 if time else 4 :], (time + text).encode())
            signed.append(name)
    origin, size, root = text.split("\n")[:3]
    require(origin == log_key.split("+")[0] and origin in signed, "a checkpoint is not by its log")
    require(len(set(signed)) == len(signed) > quorum, "too few have cosigned, or one twice")
    return int(size), b64decode(root)


def read_log(folder, trusted, *policy):
    """Entries and leaf hashes of a log in a folder of tiles, every signature verified, every run within its rules."""
    size, root = read_checkpoint((folder / "checkpoint").read_text(), *policy)
    roster = {n: trusted[n] for n in ("members", "auditors", "coordinator")} | {"revoked": [], "amended": 0}
    entries, leaves, runs = [], [], {}
    for number in range(-(-size // 256)):
        digits, width = str(number).zfill(-(-len(str(number)) // 3) * 3), min(256, size - number * 256)
        name = "/x".join(digits[i : i + 3] for i in range(0, len(digits), 3))
        name = f"x{name[:-4]}{name[-3:]}" if len(digits) > 3 else name
        data = (folder / "tile/entries" / (name if width == 256 else f"{name}.p/{width}")).read_bytes()
        while data:
            end = 2 + int.from_bytes(data[:2], "big")
            where, text = f"{folder.name}, entry {len(entries)}", data[2:end].split(b"\n")[0]
            try:
                entry = json.loads(text)
                require(canonical(entry) == text, "it is not canonical")
                check_entry(entry, text, data[2:end].decode().split("\n")[1:-1], roster, trusted)
                check_run(entry, runs)
            except Exception as error:
                raise ValueError(f"{where}: {error!r}") from error
            entries.append(entry)
            leaves.append(sha256(b"\0" + data[2:end]).digest())
            data = data[end:]
    require(len(set(leaves)) == size and root_of(leaves) == root, f"{folder.name}: other entries than signed")
    return entries, leaves, runs


def check_entry(entry, text, lines, roster, trusted):
    """The signatures of an entry, and what it does to the roster."""
    kind, member = entry["type"], entry.get("member")
    own = kind not in {"amendment", "membership"} or entry["change"] in {"join", "leave"}
    writer = (
        f"{member}#privacy-officer"
        if kind == "budget"
        else (own and member) or entry.get("party", "coordinator")
    )
    keys = {**roster["members"], **roster["auditors"], "coordinator": roster["coordinator"]}
    keys = {name: key for name, key in keys.items() if name not in roster["revoked"]}
    signed = dict(line.split(" ") for line in lines)
    require(writer in signed and list(signed) == sorted(signed), f"{writer} has not signed")
    for name, signature in signed.items():
        verify(
            trusted["officers"][member] if kind == "budget" else keys[name], f"ledger.{kind}", text, signature
        )
    if kind in {"gate", "publication"}:
        require(len(set(signed) & set(roster["members"])) >= trusted["quorum"], "too few have approved")
    now = {n: roster[n] for n in ("auditors", "coordinator", "revoked")} | {
        "members": [*map(list, roster["members"].items())]
    }
    if kind == "agreement":
        mine = [trusted[n][member] for n in ("logs", "witnesses", "officers")]
        require(
            [entry["log_key"], entry["witness_key"], entry["officer_key"]] == mine, "other keys are signed"
        )
    if kind in {"agreement", "amendment"}:
        require(entry["roster_sha256"] == sha(canonical(now)), "another roster is meant")
    if kind == "amendment":
        n, approving = len(roster["members"]), set(entry["approvals"]) & set(roster["members"]) - {member}
        said = {k: v for k, v in entry.items() if k not in {"approvals", "at", "type", "version"}}
        for name, signature in entry["approvals"].items():
            verify(keys[name], "agreement.amendment", canonical(said), signature)
        require(len(approving) >= min(2 * n // 3 + 1, n - 1), "too few have approved")
        require(entry["sequence"] == roster["amended"] + 1, "an amendment is missing")
        revoked = set(roster["revoked"]) - {member} | ({member} if entry["change"] == "revoke" else set())
        roster |= {"revoked": sorted(revoked), "amended": entry["sequence"]}
        roster["members"] = roster["members"] | ({member: entry["public_key"]} if entry["public_key"] else {})


def check_run(entry, runs):
    """The rules of one run of one dataset."""
    kind, key = entry["type"], tuple(entry.get(n) for n in ("member", "dataset_id", "run"))
    if kind == "reservation":
        require(key not in runs, "a run is reserved twice")
        runs[key] = {
            "charges": {c["kind"]: c for c in entry["charges"]},
            "record": defaultdict(int),
            "round": 0,
        }
    elif kind in {"release", "closed"}:
        run = runs.get(key, {"closed": {}})
        require("closed" not in run, "there is no open reservation")
        if kind == "closed":
            run["closed"] = entry["released"]
            for name, charge in run["charges"].items():
                require(
                    run["record"][name] <= entry["released"].get(name, 0) <= charge["count"], "a false end"
                )
        else:
            charge, spends = run["charges"][entry["purpose"]], entry["spends"]
            run["record"][charge["kind"]] += sum(spend["count"] for spend in spends)
            require(all(s["event"] == charge["event"] for s in spends), "other events than were reserved")
            require(run["record"][charge["kind"]] <= charge["count"], "more than was reserved")
            require(entry["round"] > run["round"], "a round is used twice")
            run["round"] = entry["round"]


def check_sums(entries, leaves, lines, trusted, policy):
    """Sums, their records, and how they follow from each other; which releases are summed."""
    records, released, last, model, summed = (
        {sha(line): json.loads(line) for line in lines},
        {},
        {},
        {},
        set(),
    )
    least = max(2 * len(trusted["members"]) // 3 + 1, 3)
    aborted = {
        (e["run"], e["round"]) for e in entries if e["type"] == "abort" and e["party"] == "coordinator"
    }
    for place, entry in enumerate(entries):
        if entry["type"] == "release":
            released[entry["run"], entry["round"], entry["member"]] = entry
        if entry["type"] != "aggregate":
            continue
        try:
            run, same = entry["run"], ("purpose", "step", "manifest_sha256")
            require(len(entry["released"]) >= least, "it sums too few")
            for name, y in entry["released"].items():
                release = released[run, entry["round"], name]
                require(
                    release["y_sha256"] == y and all(release[n] == entry[n] for n in same), "another vector"
                )
                summed.add((run, entry["round"], name))
            manifest = check_record(records.pop(entry["record_sha256"]), entry, trusted)
            names = ("round", "manifest_sha256", "aggregate_sha256")
            before, named = last.get(run, (0, None, None)), tuple(manifest[f"previous_{n}"] for n in names)
            failed = before[0] < named[0] < entry["round"] and (run, named[0]) in aborted and named[2] is None
            require(named == before or failed, "it does not follow")
            require(before[0] < entry["round"], "rounds go back")
            if entry["purpose"] == "training":
                require(model.get(run) in {None, manifest["model_sha256"]}, "it is for another model")
            size, root = read_checkpoint(manifest["checkpoint"], *policy)
            require(size <= place and root_of(leaves[:size]) == root, "it is of another history")
        except Exception as error:
            raise ValueError(f"federation, entry {place}: {error!r}") from error
        last[run], model[run] = tuple(entry[n] for n in names), entry["model_sha256"] or model.get(run)
    require(not records, "a record is of no sum in the federation's log")
    return summed


def check_record(record, entry, trusted):
    """The signed statements of a round; its manifest."""
    keys, protocol = {**trusted["members"], "coordinator": trusted["coordinator"]}, "hansa/secagg/v1"

    def statements(lines, purpose):
        found = {}
        for _, signer, signature, text in (line.split(" ", 3) for line in lines):
            verify(keys[signer], purpose, text.encode(), signature)
            found[signer] = json.loads(text) | {"sha256": sha(text.encode()), "text": text}
            require(all(found[signer][n] == record[n] for n in ("terms", "run", "round")), "of another round")
        require(list(found) == sorted(found, key=[*keys].index) and len(found) == len(lines), "out of order")
        return found

    offered, masked = statements(record["keys"], "secagg.keys"), statements(record["masked"], "secagg.masked")
    manifest = statements([record["manifest"]], "secagg.manifest")["coordinator"]
    base = [record["terms"], record["run"], record["round"]]
    listed = [[name, said["sha256"]] for name, said in offered.items()]
    transcript = sha(canonical([protocol, "transcript", *base, listed]))
    binding = sha(canonical([protocol, "binding", transcript, manifest["sha256"]]))
    vectors = {name: said["arrays"]["y"] for name, said in masked.items()}
    require(manifest["transcript"] == transcript, "the manifest is of other keys")
    require(set(masked) <= set(manifest["contributors"]) <= set(offered), "others than contributed")
    require(all(said["binding"] == binding for said in masked.values()), "a vector of another manifest")
    expected = {"arrays": {}, "transcript": transcript, "contributors": manifest["contributors"]}
    expected |= {"terms": base[0], "run": base[1], "round": base[2], "manifest_sha256": manifest["sha256"]}
    expected |= {"survivors": [*map(list, vectors.items())]}
    confirmed = {c["text"] for c in statements(record["confirmations"], "secagg.confirm").values()}
    require(confirmed <= {canonical(expected).decode()}, "other survivors were confirmed")
    require(
        not confirmed or len(record["confirmations"]) >= 2 * len(trusted["members"]) // 3 + 1,
        "too few confirmed",
    )
    receipts = [statements([line], "secagg.receipt")["coordinator"] for line in record["receipts"]]
    excluded = {said["member"] for said in receipts if said["binding"] == binding} - set(masked)
    logged = [entry[n] for n in ("run", "round", "step", "manifest_sha256", "aggregate_sha256", "released")]
    found = [*base[1:], manifest["step"], manifest["sha256"], record["aggregate_sha256"], vectors]
    require(logged == found and sorted(entry["excluded"]) == sorted(excluded), "its record says otherwise")
    return manifest


def compare(member, own, federation, summed, trusted):
    """What a member signed in its own log and what the federation's shows of it."""
    shared = {"reservation", "release", "closed"}
    mine, theirs = (
        {leaf: (place, entry) for place, (entry, leaf) in enumerate(zip(*log[:2], strict=True))
         if entry["type"] in shared and (entry["member"], entry["agreement_id"]) == (member, trusted["agreement_id"])}
        for log in (own, federation)
    )  # fmt: skip
    for leaf, (place, entry) in theirs.items():
        require(
            leaf in mine, f"federation, entry {place}: {member} has no such {entry['type']} in its own log"
        )
    reserved = [entry for _, entry in mine.values() if entry["type"] == "reservation"]
    runs = {r["run"] for r in reserved if r["federation_log"] in {None, trusted["federation_log"]}}
    mine = {leaf: (place, entry) for leaf, (place, entry) in mine.items() if entry["run"] in runs}
    lacking = [leaf for leaf in mine if leaf not in theirs]
    released = [mine[leaf][1] for leaf in lacking if mine[leaf][1]["type"] == "release"]
    tail = lacking == [*mine][len(mine) - len(lacking) :] and len(released) <= 1
    tail = tail and not any((entry["run"], entry["round"], member) in summed for entry in released)
    require(tail, f"{member}, entry {mine[lacking[0]][0] if lacking else 0}: the federation's log lacks it")


def cut_share(event):
    """P[Binomial(N − 1, q) ≥ B]: how likely a sample is cut."""
    q, others, batch = (
        float.fromhex(event["sampling_probability"]),
        event["most_units"] - 1,
        event["largest_batch"],
    )
    width = 40 * math.sqrt(others * q * (1 - q)) + 40
    first, last = max(0, math.floor(others * q - width)), min(others, math.ceil(others * q + width))
    logs = (
        math.lgamma(others + 1) - math.lgamma(k + 1) - math.lgamma(others - k + 1) + k * math.log(q)
        + (others - k) * math.log1p(-q) for k in range(max(batch, first), last + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)) + 1e-18)


def loss_of(event, order):
    """ρ(α) of one event; infinity where float64 does not hold it."""
    variance = float.fromhex(event.get("event", event)["noise_multiplier"]) ** 2
    q = float.fromhex(event.get("sampling_probability", "0x1p+0"))
    require(
        event["type"] in {"Gaussian", "PoissonSampled", "TruncatedPoissonSampled"}, "an event is not known"
    )
    if q == 1:
        return order / 2 / variance
    share, moment = cut_share(event) if event["type"] == "TruncatedPoissonSampled" else 0.0, 0.0
    for weight, part in ((1 - share, variance), (share, variance / 4)):
        if weight and (order * order - order) / 2 / part > 700:
            return math.inf
        powers = (math.comb(order, k) * q**k * (1 - q) ** (order - k) for k in range(2, order + 1))
        grown = (math.expm1((k * k - k) / 2 / part) if weight else 0 for k in range(2, order + 1))
        moment += weight * math.fsum(map(math.prod, zip(powers, grown, strict=True)))
    return math.log1p(moment) / (order - 1)


def epsilon(counts, delta):
    """An upper bound of ε by RDP; `counts` is a list of (event, count)."""
    found = []
    for order in (*range(2, 65), 128, 256):
        loss = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        found.append(loss + sum(count * loss_of(event, order) for event, count in counts if count))
    return max(min(found), 0.0)


def audit(ledgers, trusted):
    policy = (trusted["federation_log"], list(trusted["witnesses"].values()), trusted["quorum"])
    federation, bounds = read_log(ledgers / "federation", trusted, *policy), {}
    lines = (ledgers / "rounds.jsonl").read_bytes().splitlines()
    summed = check_sums(*federation[:2], lines, trusted, policy)
    for member in trusted["members"]:
        own = read_log(ledgers / "members" / member, trusted, trusted["logs"][member])
        compare(member, own, federation, summed, trusted)
        grants = {entry["dataset_id"]: entry for entry in own[0] if entry["type"] == "budget"}
        counts = defaultdict(list)
        for (_, dataset, _), run in own[2].items():
            for kind, charge in run["charges"].items():
                counts[dataset].append(
                    (charge["event"], run.get("closed", {kind: charge["count"]}).get(kind, 0))
                )
        for dataset, spent in counts.items():
            bounds[member, dataset] = epsilon(spent, float.fromhex(grants[dataset]["delta"]))
    return bounds


if __name__ == "__main__":
    for (who, which), bound in audit(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())).items():
        print(f"{who}, dataset {which[:8]}: ε is at most {bound:.4f}")  # noqa: T201

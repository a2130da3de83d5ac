"""The static table of sub-commands: names and help, and where each is found once it is called.

Listing help reads this table alone. A command's module is imported when the command runs, so that an auditor
who asks for help waits for nothing and needs no extra.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One sub-command.

    Attributes:
        help: one line for the listing; the function's docstring is the long form.
        module: where the command is; imported only when it is called.
        function: the Typer function in it.
        extra: the extra of the distribution that brings what the command needs; absent for the base install.
    """

    help: str
    module: str
    function: str
    extra: str | None = None


@dataclass(frozen=True)
class Table:
    """A group of sub-commands."""

    help: str
    rows: Mapping[str, Row]


COMMANDS: Mapping[str, Row | Table] = {
    "agreement": Table(
        "Write, check, freeze, sign and amend an agreement.",
        {
            "new": Row("Write a commented agreement to start from.", "hansa.cli.agreement", "new"),
            "check": Row(
                "Check an agreement and tell everything that is wrong.", "hansa.cli.agreement", "check"
            ),
            "show": Row(
                "Show the terms, their ids and what follows from them.", "hansa.cli.agreement", "show"
            ),
            "plan": Row(
                "Compare noise, steps and rates at the same ε, and recommend one.",
                "hansa.cli.planning",
                "plan",
            ),
            "freeze": Row(
                "Fix model 0, noise and keys, and write the frozen agreement.",
                "hansa.cli.agreement",
                "freeze",
                "client",
            ),
            "sign": Row("Sign a frozen agreement with this node's key.", "hansa.cli.signing", "sign"),
            "keys": Row("Write the keys that audits and nodes believe.", "hansa.cli.signing", "keys"),
            "amend": Row("Propose or approve a change of a member's key.", "hansa.cli.amending", "amend"),
        },
    ),
    "audit": Table(
        "Check a federation from copies of its logs and public keys.",
        {
            "verify": Row(
                "Check signatures, histories, sums, budgets and every ε.", "hansa.cli.audit", "verify"
            ),
            "report": Row(
                "Write what logs show about privacy, as a page or as JSON.",
                "hansa.cli.audit_report",
                "report",
            ),
            "follow": Row(
                "Mirror a federation's log from afar, and check it as it grows.",
                "hansa.cli.audit_follow",
                "follow",
                "follow",
            ),
        },
    ),
    "bench": Table(
        "Measure what Hansa costs.",
        {
            "engine": Row(
                "Time per client of the simulation engines, with clients that do nothing.",
                "hansa.cli.bench",
                "engine",
                "simulation",
            ),
            "secagg": Row(
                "Time and bytes of the secure sum, beside Flower's SecAgg+.",
                "hansa.cli.bench",
                "secagg",
                "simulation",
            ),
            "ledger": Row(
                "Durable appends, proofs and verification of logs.",
                "hansa.cli.bench",
                "ledger",
                "simulation",
            ),
            "pooled": Row(
                "A step under shared noise without its gradient, taken apart.",
                "hansa.cli.bench",
                "pooled",
                "simulation",
            ),
            "training": Row(
                "Private training as a multiple of plain training, beside Opacus.",
                "hansa.cli.bench",
                "training",
                "simulation",
            ),
            "league": Row(
                "A round between machines: nodes, TLS, recovery, memory.",
                "hansa.cli.bench_league",
                "league",
                "simulation",
            ),
            "chaos": Row(
                "Kill a league's processes at random, and judge what they leave.",
                "hansa.cli.bench_league",
                "chaos",
                "simulation",
            ),
            "publication": Row(
                "Size, speed and quality lost by the file that ships.",
                "hansa.cli.bench_publication",
                "publication",
                "simulation",
            ),
        },
    ),
    "ca": Table(
        "Run the consortium's certificate authority.",
        {
            "init": Row("Make an authority in a new folder.", "hansa.cli.authority", "init"),
            "issue": Row("Issue a certificate for a member's key.", "hansa.cli.authority", "issue"),
            "revoke": Row("Revoke a certificate and renew the list.", "hansa.cli.authority", "revoke"),
            "refresh": Row("Sign the list of revoked certificates anew.", "hansa.cli.authority", "refresh"),
        },
    ),
    "coordinator": Table(
        "Keep a league's meeting place.",
        {
            "init": Row(
                "Make a coordinator's home the meeting place of a league.",
                "hansa.cli.coordinator",
                "init",
                "server",
            ),
            "start": Row(
                "Run the SuperLink and the ledger service.", "hansa.cli.coordinator", "start", "server"
            ),
            "status": Row(
                "Show who is there and what runs are doing.", "hansa.cli.coordinator", "status", "server"
            ),
        },
    ),
    "ledger": Table(
        "Show logs to the machines of others.",
        {
            "serve": Row("Serve logs to members and auditors.", "hansa.cli.ledger", "serve", "server"),
        },
    ),
    "model": Table(
        "Check and run a published model.",
        {
            "verify": Row("Check everything in a published package.", "hansa.cli.model", "verify"),
            "monitor": Row(
                "Compare a later private evaluation with the published one.", "hansa.cli.model", "monitor"
            ),
            "predict": Row(
                "Run a published model on rows of a CSV, or on texts.",
                "hansa.cli.model",
                "predict",
                "predict",
            ),
        },
    ),
    "node": Table(
        "What a member runs inside its own walls.",
        {
            "init": Row("Make a node's keys, card and settings.", "hansa.cli.node_identity", "init"),
            "officer": Row(
                "Make the key of a member's privacy officer.", "hansa.cli.node_officer", "officer"
            ),
            "grant": Row("Grant a budget, or put a grant back.", "hansa.cli.node_officer", "grant"),
            "budget": Row(
                "Show what is spent and left, and what an agreement would cost.",
                "hansa.cli.node_budget",
                "budget",
            ),
            "attack": Row(
                "Attack this member's own trainer, with generated units.",
                "hansa.cli.node_attack",
                "attack",
                "client",
            ),
            "recover": Row(
                "Rebuild a ledger from the federation's log.", "hansa.cli.node_recovery", "recover"
            ),
            "accept": Row(
                "Have this node serve an agreement that it has signed.",
                "hansa.cli.node_league",
                "accept",
                "client",
            ),
            "start": Row(
                "Take part in leagues, as a Flower node.", "hansa.cli.node_league", "start", "client"
            ),
            "doctor": Row("See whether this node can take part.", "hansa.cli.node_ready", "doctor", "client"),
            "rehearse": Row(
                "Do a round's work and send nothing.", "hansa.cli.node_ready", "rehearse", "client"
            ),
            "withdraw": Row("Take no part in an agreement any more.", "hansa.cli.node_ready", "withdraw"),
            "override": Row(
                "Excuse, for this member, what a gate could not decide.",
                "hansa.cli.overriding",
                "by_member",
                "client",
            ),
            "pause": Row("Take no part in anything for now.", "hansa.cli.node_league", "pause"),
            "resume": Row("Take part again.", "hansa.cli.node_league", "resume"),
            "certificate": Row(
                "Check and install a certificate for this node's key.",
                "hansa.cli.node_identity",
                "certificate",
            ),
            "check": Row(
                "Check a member's data against an agreement, before anything is spent.",
                "hansa.cli.node",
                "check",
                "client",
            ),
        },
    ),
    "run": Table(
        "Start, watch, resume and stop runs of a league.",
        {
            "start": Row("Start a run.", "hansa.cli.run", "start", "server"),
            "evaluate": Row(
                "Have a published model evaluated on later records.", "hansa.cli.run", "evaluate", "server"
            ),
            "list": Row("List the runs, the newest first.", "hansa.cli.run", "listed", "server"),
            "log": Row("Show what happened in a run.", "hansa.cli.run", "log", "server"),
            "recompute": Row("Recompute each sum of a run.", "hansa.cli.run", "recompute", "server"),
            "override": Row(
                "Excuse what the gate of a run could not decide.",
                "hansa.cli.overriding",
                "by_coordinator",
                "server",
            ),
            "resume": Row(
                "Have an interrupted run go on, or its gate decided again.",
                "hansa.cli.run",
                "resume",
                "server",
            ),
            "stop": Row("End a run for good.", "hansa.cli.run", "stop", "server"),
        },
    ),
    "simulate": Row(
        "Run a whole federation on this machine and report on it.",
        "hansa.cli.simulate",
        "simulate",
        "simulation",
    ),
}

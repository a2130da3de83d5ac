"""The agreement: the terms that every party holds in common, their hashes, and what stands beside them."""

from hansa.agreement.document import Agreement, Frozen, FrozenModel, parse_agreement, read_agreement
from hansa.agreement.force import not_in_force
from hansa.agreement.local import Performance, Simulation
from hansa.agreement.terms import Member, Privacy, Terms

__all__ = [
    "Agreement",
    "Frozen",
    "FrozenModel",
    "Member",
    "Performance",
    "Privacy",
    "Simulation",
    "Terms",
    "not_in_force",
    "parse_agreement",
    "read_agreement",
]

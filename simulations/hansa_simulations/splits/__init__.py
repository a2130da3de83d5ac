"""Data for every member of a simulated federation: who holds which records, and which are kept back to measure.

`load_members` follows the agreement's `[simulation]`: members are files, folders of an archive, codes of a
column, Dirichlet shares or generated, and each member's records are split once into training and test records.
The simulator holds both; a real member never splits by looking at all of its records.
"""

from hansa_simulations.splits.holdout import Holdout, split_records, stratified, unit_hash
from hansa_simulations.splits.members import MemberRecords, load_members
from hansa_simulations.splits.partitions import partition

__all__ = [
    "Holdout",
    "MemberRecords",
    "load_members",
    "partition",
    "split_records",
    "stratified",
    "unit_hash",
]

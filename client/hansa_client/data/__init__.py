"""A member's data: read from files, held to the agreement's schema, encoded for a model.

`read_records` turns a file, a folder or an archive into `Records` under the agreement's column names; `encode`
turns those into a `Dataset` by public ranges and vocabularies alone; `inspect` tells a person everything that is
wrong before anything is spent. What a record becomes never depends on another unit's records.
"""

from hansa_client.data.dataset import Dataset
from hansa_client.data.encoding import Tokenize, Usable, encode, unit_names, usable_records
from hansa_client.data.inspection import Finding, Inspection, inspect
from hansa_client.data.reader import read_folders, read_records
from hansa_client.data.records import ColumnMapping, Raw, Records, canonical, wanted_columns

__all__ = [
    "ColumnMapping",
    "Dataset",
    "Finding",
    "Inspection",
    "Raw",
    "Records",
    "Tokenize",
    "Usable",
    "canonical",
    "encode",
    "inspect",
    "read_folders",
    "read_records",
    "unit_names",
    "usable_records",
    "wanted_columns",
]

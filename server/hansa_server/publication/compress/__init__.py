"""Steps from the final model to the file that ships, each a small object that names its privacy cost.

`compress` runs them in order. Merging, pruning, ONNX and int8 are functions of the private model alone: post-processing,
which costs nothing. Distillation and the pruning of a vocabulary read texts, and take public ones only. A step that
would touch private data says so in its `cost`, and is refused unless somebody charges it.
"""

from hansa_server.publication.compress.agreed import agreed_steps
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.corpus import PublicCorpus, generated_rows
from hansa_server.publication.compress.distillation import Distil
from hansa_server.publication.compress.merging import MergeAdapter
from hansa_server.publication.compress.onnx_export import ExportOnnx
from hansa_server.publication.compress.pruning import PruneMagnitude, PruneStructure
from hansa_server.publication.compress.quantisation import DynamicInt8
from hansa_server.publication.compress.step import POST_PROCESSING, Cost, Step, compress
from hansa_server.publication.compress.vocabulary import PruneVocabulary

__all__ = [
    "POST_PROCESSING",
    "Candidate",
    "Cost",
    "Distil",
    "DynamicInt8",
    "ExportOnnx",
    "MergeAdapter",
    "PruneMagnitude",
    "PruneStructure",
    "PruneVocabulary",
    "PublicCorpus",
    "Step",
    "agreed_steps",
    "compress",
    "generated_rows",
]

"""The published package: a folder that proves what it is, and that anybody can run with ONNX Runtime alone.

`draft_package` and `seal_package` write one; `verify_package` checks it with public keys and nothing else; `predict` runs
it. `run_confined` runs a model's file as data, which is also what members do before they judge it. Nothing here knows
torch.
"""

from hansa.artifact.confined import ConfinedScores, Limits, run_confined
from hansa.artifact.contents import FairnessTable, PrivacyStatement, Release
from hansa.artifact.graph import Graph, read_graph
from hansa.artifact.package import draft_package, seal_package
from hansa.artifact.predicting import Predictions, predict
from hansa.artifact.privacy import privacy_statement
from hansa.artifact.verifying import VerifiedPackage, verify_package

__all__ = [
    "ConfinedScores",
    "FairnessTable",
    "Graph",
    "Limits",
    "Predictions",
    "PrivacyStatement",
    "Release",
    "VerifiedPackage",
    "draft_package",
    "predict",
    "privacy_statement",
    "read_graph",
    "run_confined",
    "seal_package",
    "verify_package",
]

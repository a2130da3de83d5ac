"""Models: from the terms of an agreement to a module, and between its trained weights and one flat vector.

The only room of `hansa` that imports torch, and with it `transformers` and `peft`. `build_model` gives model 0,
the same bytes on every machine: logistic regression or a transformer over tables, a Hugging Face classifier for
texts, in full or by an adapter, or a model of one's own. It refuses what cannot be trained record by record.
"""

from hansa.models.build import build_model, checked_model, table_probe, table_width
from hansa.models.built import BuiltModel
from hansa.models.flat import FlatParameters
from hansa.models.tokenizer import trim_padding

__all__ = [
    "BuiltModel",
    "FlatParameters",
    "build_model",
    "checked_model",
    "table_probe",
    "table_width",
    "trim_padding",
]

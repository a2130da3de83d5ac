"""ONNX Runtime's fusions, then dynamic int8: weights as 8-bit integers, activations scaled as they come.

Dynamic quantisation looks at weights alone, so it costs no privacy; static scales would be minima and maxima of activations
on data. Weights are signed, one scale for each output, in 7 bits: on processors without VNNI two products of full
8-bit numbers overflow their 16-bit sum (ONNX Runtime, "Quantize ONNX models", on reduce_range).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hansa.artifact.errors import ExportError, ModelFileError, StepError
from hansa.artifact.graph import read_graph
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.onnx_export import TOLERANCE, compare
from hansa_server.publication.compress.step import POST_PROCESSING, Cost

_FLOAT = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class DynamicInt8:
    """Fuse and quantise an exported model.

    Attributes:
        target: ``cpu``. int8 on a GPU is refused: weights in int8 alone were measured slower there than bf16, and
            torchao's kernels want torch, which a published package does without.
    """

    target: Literal["cpu", "gpu"] = "cpu"
    name = "int8"
    cost: Cost = POST_PROCESSING

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        if self.target != "cpu":
            raise StepError(
                "int8 for a GPU is not offered",
                remedy="Publish int8 for CPUs, or run model.safetensors in bfloat16 on a GPU.",
            )
        if candidate.onnx is None:
            raise StepError("the step 'int8' needs an exported model", remedy="Put 'onnx' before 'int8'.")
        fused = optimised(candidate)
        compare(candidate, fused, TOLERANCE)
        data = quantised(fused)
        try:
            read_graph(data)
        except ModelFileError as error:
            raise ExportError(f"the quantised model would not be run: {error.cause}") from None
        return replace(candidate, onnx=data), (
            f"fused and quantised {len(candidate.onnx):,} bytes to {len(data):,} "
            f"({len(data) / len(candidate.onnx):.3f}); activations are scaled as they come."
        )


def optimised(candidate: Candidate) -> bytes:
    """The file with attention, normalisation and activations fused where ONNX Runtime knows the pattern.

    Raises:
        StepError: nothing was exported.
    """
    if candidate.onnx is None:
        raise StepError("nothing was exported yet")
    heads, width = _attention(candidate)
    if not heads:
        return candidate.onnx
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="hansa-onnx-") as folder:
        warnings.simplefilter("ignore")
        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        source = Path(folder) / "model.onnx"
        source.write_bytes(candidate.onnx)
        model: Any = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=heads,
            hidden_size=width,
            optimization_options=FusionOptions("bert"),
            opt_level=0,
        )
        target = Path(folder) / "fused.onnx"
        model.save_model_to_file(str(target))  # which also notes the domain of the fused operators
        return target.read_bytes()


def quantised(data: bytes) -> bytes:
    """The file with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="hansa-onnx-") as folder:
        warnings.simplefilter("ignore")
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # it advises on the root logger
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(data)
        try:
            quantize_dynamic(
                source,
                target,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": _FLOAT},
            )
        except Exception as error:  # of many kinds; the reader needs to know which step failed
            raise ExportError(f"the model cannot be quantised: {str(error).splitlines()[0][:300]}") from error
        finally:
            logger.setLevel(level)
        return target.read_bytes()


def _attention(candidate: Candidate) -> tuple[int, int]:
    """Heads and width of an encoder, or zeros where there is nothing to fuse.

    After heads were pruned the fusion would not fit, for it takes the width of all heads to be that of the model.
    """
    config: Any = getattr(getattr(candidate.module, "model", None), "config", None)
    heads, width = (int(getattr(config, name, 0) or 0) for name in ("num_attention_heads", "hidden_size"))
    for layer in candidate.module.modules():
        held = getattr(layer, "num_attention_heads", heads)
        if isinstance(held, int) and held != heads and not hasattr(layer, "config_class"):
            return 0, 0
    return heads, width

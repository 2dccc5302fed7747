"""One dense model by several libraries, on one thread: the unit of time is the fastest of them.

ONNX Runtime and OpenVINO read the graph that PyTorch exports; int8 is ONNX Runtime's dynamic quantisation,
int8 weights for each tensor and activations as they come. What is not installed is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_peers import dense_model
from benchmarks.text_peers import onnx_session
from mass_serve.backbone import Architecture, DenseWeights, run
from mass_serve.engine import Engine, Query

ONNX, OPENVINO, PEFT = "ONNX Runtime", "OpenVINO", "PEFT"
NEEDED = {
    ONNX: ("onnxruntime", "onnx", "onnxscript"),
    OPENVINO: ("openvino", "onnx", "onnxscript"),
    PEFT: ("peft",),
}
Forward = Callable[[], object]


def left_out() -> dict[str, str]:
    """Returns what cannot be measured here, by the library's name: a line that says what to install."""
    line = "{} is left out: it needs {}, which pip install 'mass-serve[peers]' brings"
    missing = {
        name: [package for package in packages if find_spec(package) is None]
        for name, packages in NEEDED.items()
    }
    return {name: line.format(name, ", ".join(packages)) for name, packages in missing.items() if packages}


class Dense(torch.nn.Module):
    """transformers' encoder from pixels to embeddings, and nothing else that it returns."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.model(pixels).image_embeds
        return embeddings


class DenseModels:
    """Encoders of one architecture with random weights, by every library that is installed."""

    def __init__(self, architecture: Architecture, folder: Path) -> None:
        """Exports what is read from files, into the folder."""
        self.architecture = architecture
        self._transformers = dense_model(architecture, torch.float32, torch.device("cpu"))
        self._missing = left_out()
        self._exported = folder / "dense.onnx"
        self.quantised = folder / "dense.int8.onnx"  # of ONNX Runtime
        if {ONNX, OPENVINO} - set(self._missing):
            self._export()

    def forwards(self, dtype: str, pixels: Tensor) -> dict[str, Forward]:
        """The libraries that compute in that dtype, each over normalised pixels [B, 3, H, W] float32."""
        forwards: dict[str, Forward] = {}
        if dtype != "int8":
            forwards["transformers"] = self._by_transformers(getattr(torch, dtype), pixels)
        if ONNX not in self._missing and dtype != "bfloat16":  # which it has no products of on a CPU
            session = onnx_session(self.quantised if dtype == "int8" else self._exported)
            forwards[ONNX] = lambda: session.run(None, {"pixels": pixels.numpy()})
        if OPENVINO not in self._missing and dtype != "int8":
            forwards[OPENVINO] = self._by_openvino(dtype, pixels)
        return forwards

    def _by_transformers(self, dtype: torch.dtype, pixels: Tensor) -> Forward:
        model, own = self._transformers.to(dtype), pixels.to(dtype)

        @torch.inference_mode()
        def forward() -> object:
            return model(own).image_embeds

        return forward

    def _by_openvino(self, dtype: str, pixels: Tensor) -> Forward:
        import openvino

        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(self._exported), "CPU", options)
        return lambda: compiled([pixels.numpy()])

    def _export(self) -> None:
        size = self.architecture.patches.image_size
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Dense(self._transformers),
                (torch.zeros(2, 3, size, size),),
                self._exported,
                input_names=["pixels"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
        if ONNX not in self._missing:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(
                self._exported,
                self.quantised,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Gemm"],
                use_external_data_format=True,
            )


def ours(engine: Engine, queries: Sequence[Query]) -> Forward:
    """The engine's own encoder over the images, without any task."""
    weights = DenseWeights(engine.bank.pretrained)

    @torch.inference_mode()
    def forward() -> object:
        return run(engine.architecture, weights, engine._inputs(queries)).embedding

    return forward


def fastest(seconds: Mapping[str, float]) -> float:
    """Returns the unit of time."""
    return min(seconds.values())

"""What else could serve the same texts: a classifier of transformers, and of ONNX Runtime, padded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

INSTALL = "pip install onnxruntime onnx onnxscript"


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The ids [B, L] of texts padded to the longest, and their mask [B, L] int64."""
    ids = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    return ids, (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()


def transformers_forward(path: Path, texts: Sequence[Tensor]) -> Callable[[], Tensor]:
    """A classifier over a batch; it attends by PyTorch's scaled_dot_product_attention."""
    classifier: Any = transformers.AutoModelForSequenceClassification
    model = classifier.from_pretrained(path, attn_implementation="sdpa").eval()
    ids, mask = padded(texts)

    @torch.inference_mode()
    def run() -> Tensor:
        # No text of a batch of equally long ones is padded: a mask would only slow it down.
        logits: Tensor = model(input_ids=ids, attention_mask=None if mask.all() else mask).logits
        return logits

    return run


def export_onnx(path: Path, file: Path) -> None:
    """Writes the classifier at `path` as a graph, with the operations fused that ONNX Runtime has kernels of.

    Raises ImportError, with what to install, where a package is missing.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter writes by it
        from onnxruntime.transformers import optimizer
    except ImportError as error:
        raise ImportError(f"ONNX Runtime is one of the dense models: {INSTALL}") from error
    classifier: Any = transformers.AutoModelForSequenceClassification
    model = classifier.from_pretrained(path).eval()
    texts = torch.full((2, 8), 7), torch.ones(2, 8, dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    unfused = file.with_suffix(".unfused.onnx")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            texts,
            unfused,
            input_names=["ids", "mask"],
            dynamic_shapes=(axes, axes),
            dynamo=True,
            verbose=False,
        )
    config = model.config
    fused = optimizer.optimize_model(
        str(unfused), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size
    )
    fused.save_model_to_file(str(file), use_external_data_format=True)


def onnx_session(file: Path, *, keeps_memory: bool = True) -> Any:
    """A session of ONNX Runtime on one thread; it keeps a batch's memory for the next, as is its default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = keeps_memory
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def onnx_forward(session: Any, texts: Sequence[Tensor]) -> Callable[[], Tensor]:
    """A session over a batch."""
    ids, mask = padded(texts)
    feed = {"ids": ids.numpy(), "mask": mask.numpy()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])

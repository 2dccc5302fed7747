"""Rows of tables whose changes are those of each row's segment: words, positions and types of tokens.

There is no fused form: a gather and a small product are PyTorch's own on every device.
"""

from mass_serve.kernels.embedding.reference import segmented_added_rows, segmented_embedding

__all__ = ["segmented_added_rows", "segmented_embedding"]

"""Scaled dot-product attention, a sample with the same bits in any batch.

It has no weights and no segments, and nothing chooses by the device: a pass that is launched from a plan has
the fused form, which takes samples of all lengths at once, and any other the reference's, which takes those
of one length.
"""

from mass_serve.kernels.attention.reference import (
    attend,
    attend_near,
    attend_once,
    join_heads,
    split_heads,
)

__all__ = ["attend", "attend_near", "attend_once", "join_heads", "split_heads"]

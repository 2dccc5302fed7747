"""How many blocks of a kernel a multiprocessor holds at once, from what one block takes of it.

    blocks = min over warps, block slots, registers, shared and tensor memory (what there is / a block's)

as NVIDIA's occupancy calculator counts it (`cuda_occupancy.h` of the CUDA toolkit): a warp's registers are
rounded up to the unit in which they are given out, and a quarter of the registers serves a quarter of the
warps; the system reserves 1 KiB of shared memory for every block. AMD's compute units have four such quarters
too, whose registers LLVM's guide to its backend gives.
"""

from __future__ import annotations

from benchmarks.gpu_targets import Target

QUARTERS = 4


def blocks_per_multiprocessor(
    target: Target, *, num_warps: int, registers: int, shared_bytes: int, tensor_columns: int = 0
) -> int:
    """The equation of this module's docstring, for threads that have `registers` each."""
    there = target.multiprocessor
    of_warp = _rounded(max(registers, 1) * target.gpu.warp_size, there.register_unit)
    warps_by_registers = there.registers // QUARTERS // of_warp * QUARTERS
    shared = _rounded(shared_bytes + there.reserved_shared_bytes, there.shared_unit)
    limits = [
        there.blocks,
        min(there.warps, warps_by_registers) // num_warps,
        there.shared_bytes // shared if shared else there.blocks,
        there.tensor_columns // tensor_columns if tensor_columns else there.blocks,
    ]
    return min(limits)


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit

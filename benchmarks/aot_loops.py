"""Finds the loops of a compiled kernel that multiply matrices, and how wide what they load is.

A loop is a cycle in the graph of the assembly's basic blocks. Of PTX and of AMD's assembly only labels,
branches, loads from global memory and products of matrices are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import networkx

PRODUCT = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma|v_mfma)")
LABEL = re.compile(r"^(\$L\w+|\.LBB\w+):")
BRANCH = re.compile(r"\b(bra(?:\.uni)?|s_branch|s_cbranch_\w+)\s+(\$L\w+|\.LBB\w+)")
LEAVES = re.compile(r"^(?:ret|bra|s_endpgm|s_branch)\b")
COPY = re.compile(r"^(?:@!?%p\d+ )?cp\.async\.c[ag]\.shared\.global.*\], (0x[0-9a-f]+|\d+)")
LOAD = re.compile(r"^(?:@!?%p\d+ )?ld\.global[.\w:]*?(?:\.v(\d))?\.[bsuf](\d+)\b")
AMD_LOAD = re.compile(r"^(?:global|buffer|flat)_load_(dwordx(\d)|dword|[us]?short\w*|[us]byte\w*)")


@dataclass(frozen=True)
class Loop:
    """Holds one innermost loop that multiplies matrices."""

    instructions: tuple[str, ...]

    @property
    def loads(self) -> Counter[int]:
        """How many instructions load how many bytes of global memory each, for one thread."""
        return Counter(size for line in self.instructions if (size := loaded_bytes(line)))


def loaded_bytes(instruction: str) -> int:
    """Returns what an instruction loads of global memory for a thread; 0 where it loads nothing."""
    if found := COPY.match(instruction):
        return int(found[1], 0)
    if found := LOAD.match(instruction):
        return int(found[1] or 1) * int(found[2]) // 8
    if found := AMD_LOAD.match(instruction):
        words = int(found[2] or 1) if "dword" in found[1] else 0
        return 4 * words or (2 if "short" in found[1] else 1)
    return 0


def product_loops(assembly: str) -> list[Loop]:
    """The innermost of the loops that hold a product of matrices."""
    blocks = list(_blocks(assembly))
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(blocks)))
    places = {label: at for at, (labels, _) in enumerate(blocks) for label in labels}
    for at, (_, lines) in enumerate(blocks):
        followers = [places[found[2]] for line in lines if (found := BRANCH.search(line))]
        if at + 1 < len(blocks) and not (lines and LEAVES.match(lines[-1])):
            followers.append(at + 1)
        graph.add_edges_from((at, follower) for follower in followers)
    multiplies = {at for at, (_, lines) in enumerate(blocks) if any(map(PRODUCT.search, lines))}
    loops = _innermost(graph, set(graph), multiplies)
    return [Loop(tuple(line for at in sorted(loop) for line in blocks[at][1])) for loop in loops]


def _innermost(graph: networkx.DiGraph, nodes: set[int], wanted: set[int]) -> Iterator[set[int]]:
    """Yields the smallest cycles that hold a wanted node: a loop without its head is its inner loops."""
    for loop in networkx.strongly_connected_components(graph.subgraph(nodes)):
        if not loop & wanted or (len(loop) == 1 and not graph.has_edge(*loop, *loop)):
            continue
        heads = {at for at in loop if any(before not in loop for before in graph.predecessors(at))}
        yield from list(_innermost(graph, loop - heads, wanted)) or [loop]


def _blocks(assembly: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """Yields each basic block's labels and instructions."""
    labels: list[str] = []
    lines: list[str] = []
    for text in assembly.splitlines():
        line = re.split(r"//|;(?=\s|$)", text)[0].strip()
        if found := LABEL.match(line):
            if lines:
                yield labels, lines
                labels, lines = [], []
            labels.append(found[1])
        elif line:
            lines.append(line)
            if BRANCH.search(line) or LEAVES.match(line):
                yield labels, lines
                labels, lines = [], []
    if lines:
        yield labels, lines

"""The mutants of a file, each a copy with one small change: cosmic-ray's, and one kind of our own."""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

Position = tuple[int, int]
PARSE: Any = parso.parse  # it has no types

# cosmic-ray has eleven replacements for every `+`, nearly all of which break at once. One that is close asks
# more of the tests, and does not flatter them.
ARITHMETIC = {
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Div_FloorDiv", "FloorDiv_Mul", "FloorDiv_Div"),
    *("Mod_FloorDiv", "Pow_Mul", "RShift_LShift", "LShift_RShift"),
    *("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr"),
}
BINARY = "ReplaceBinaryOperator_"
COMPARISON = "ReplaceComparisonOperator_"
# `is` in place of `==` is another question than that of a value.
IDENTITY = {"Is", "IsNot"}


@dataclass(frozen=True)
class Mutant:
    """A file's text with one change."""

    line: int
    was: str  # the line, its blanks made one
    now: str
    source: str


class ReturnedNothing(Operator):  # type: ignore[misc]
    """Returns None in place of a value."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Position, Position]]:
        if node.type == "return_stmt" and node.children[1].get_code().strip() != "None":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        node.children[1] = PARSE(" None")
        return node

    @classmethod
    def examples(cls) -> Iterable[Any]:
        return ()


def mutants(source: str) -> list[Mutant]:
    """Returns the mutants of a file, in the order of its lines, without those that say the same."""
    annotations = list(_annotations(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    made = {}
    for operator in _operators():
        places = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (node, start) in enumerate(places):
            separates = (
                node.parent is not None and node.parent.type == "parameters"
            )  # the star in `(a, *, b)`
            if not separates and not any(first <= start < end for first, end in annotations):
                changed = _changed(source, operator, occurrence)
                if changed not in (None, source):
                    made[changed] = _mutant(source, changed)
    return sorted(made.values(), key=lambda mutant: mutant.line)


def _changed(source: str, operator: Operator, occurrence: int) -> str | None:
    try:
        changed = mutate_code(source, operator, occurrence)
        ast.parse(changed)
    # cosmic-ray cannot replace an exception that has a dot in its name, nor write every change as Python.
    except (AttributeError, SyntaxError):
        return None
    return str(changed)


def _operators() -> list[Operator]:
    provider = OperatorProvider()
    classes = [provider[name] for name in provider if _is_wanted(name)]
    return [ReturnedNothing(), *(operator() for operator in classes if not operator.arguments())]


def _is_wanted(name: str) -> bool:
    if name.startswith(BINARY):
        return name.removeprefix(BINARY) in ARITHMETIC
    if name.startswith(COMPARISON):
        before, after = name.removeprefix(COMPARISON).split("_")
        return (before in IDENTITY) == (after in IDENTITY)
    return True


def _annotations(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    """Yields the places of annotations that are never evaluated: all but those of pydantic's fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            found = [argument.annotation for argument in arguments] + [node.returns]
            found += [item.annotation for item in ast.walk(node) if isinstance(item, ast.AnnAssign)]
        elif isinstance(node, ast.ClassDef) and any("dataclass" in ast.dump(d) for d in node.decorator_list):
            found = [item.annotation for item in node.body if isinstance(item, ast.AnnAssign)]
        else:
            continue
        yield from (_extent(annotation) for annotation in found if annotation is not None)


def _extent(node: ast.expr) -> tuple[Position, Position]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _mutant(source: str, changed: str) -> Mutant:
    before, after = source.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    _, start, end, new_start, new_end = next(block for block in blocks if block[0] != "equal")
    was, now = (
        " ".join(itertools.chain(*map(str.split, lines)))
        for lines in (before[start:end], after[new_start:new_end])
    )
    return Mutant(start + 1, was, now, changed)

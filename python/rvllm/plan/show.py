"""Print a plan as text: one line per op, repeated layers folded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rvllm.plan.graph import Node, Plan, Tensor

if TYPE_CHECKING:
    from rvllm._native.device import Device

_SYMBOLS = {"tokens": "T", "rows": "R", "seqs": "S", "one": "1"}
_HEADER = ("#", "op", "operands", "shape", "dtype", "kernel", "weight bytes")


def plan_lines(plan: Plan, kernels: Sequence[str | None], device: Device) -> list[str]:
    """Return the table: index, op, operands, output shape and type, kernel, resident bytes of the op's weights.

    T tokens, R wanted rows. Names of weights are relative to the layer; `next.` is the following layer.
    """
    rows: list[tuple[str, ...]] = [_HEADER]
    last = max((n.layer for n in plan.ops if n.layer is not None), default=0)
    indexed = [(i, n, _cells(n, kernels[i], device)) for i, n in enumerate(plan.ops)]
    previous: list[tuple[str, ...]] = []
    first_folded = 0
    for layer, group in groupby(indexed, key=lambda item: item[1].layer):
        ops = list(group)
        cells = [c for _, _, c in ops]
        if layer is not None and cells == previous:
            first_folded = first_folded or layer
            continue
        if first_folded:
            rows.append(_folded(first_folded, layer or last + 1))
            first_folded = 0
        if layer is not None:
            rows.append(("", f"layer {layer}"))
        rows.extend((str(i), *c) for (i, _, _), c in zip(ops, cells, strict=True))
        previous = cells
    widths = [max(len(r[c]) for r in rows if len(r) == len(_HEADER)) for c in range(len(_HEADER))]
    return [_align(row, widths) for row in rows]


def _folded(first: int, end: int) -> tuple[str, ...]:
    which = f"layer {first}" if end - first == 1 else f"layers {first}..{end - 1}"
    return ("", f"{which} as layer {first - 1}")


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    if len(row) < len(widths):
        return f"{'':>{widths[0]}}  {row[1]}"
    cells = [f"{row[0]:>{widths[0]}}", *(f"{c:<{w}}" for c, w in zip(row[1:-1], widths[1:-1], strict=True))]
    return "  ".join([*cells, f"{row[-1]:>{widths[-1]}}"]).rstrip()


def _cells(n: Node, kernel: str | None, device: Device) -> tuple[str, ...]:
    reads = [t.name for t in n.inputs] + [_relative(w.name, n.layer) for w in n.weights]
    writes = ", ".join(t.name for t in n.outputs) or "KV cache"
    shown = n.outputs[0] if n.outputs else n.inputs[0]
    n_bytes = sum(device.weight_bytes(w) for w in n.weights)
    return (
        n.op,
        f"{writes} = {', '.join(reads)}",
        _shape(shown),
        shown.dtype,
        kernel or "MISSING",
        f"{n_bytes:,}" if n_bytes else "-",
    )


def _shape(t: Tensor) -> str:
    return f"[{_SYMBOLS[t.rows]}, {t.cols}]"


def _relative(name: str, layer: int | None) -> str:
    """Shorten the name of a weight so that equal layers have equal text."""
    name = name.removesuffix(".weight")
    parts = name.split(".")
    number = next((i for i, p in enumerate(parts) if p.isdigit()), None)
    if number is None or layer is None:
        return name
    rest = ".".join(parts[number + 1 :])
    return {layer: rest, layer + 1: f"next.{rest}"}.get(int(parts[number]), name)

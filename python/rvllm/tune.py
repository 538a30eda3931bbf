"""`rvllm tune`: measure how else the products of a model could run on this GPU; keep what is faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError
from rvllm.kernel_table import write_table
from rvllm.loader import PlannedModel, plan_model
from rvllm.models import read_model_config
from rvllm.plan.graph import Node

if TYPE_CHECKING:
    from rvllm.engine import Progress

_HEADER = ("type", "N", "K", "rows", "", "kernel", "tokens", "split", "stages", "us", "built-in")


def run(config: EngineConfig, progress: Progress | None = None) -> str:
    """Measure, write the table that later starts read, and return what was found as text.

    `progress` is called with the bytes of the weights measured so far and of all. Weights are random: only their shapes
    count. Raises ConfigError where there is nothing to choose.
    """
    if config.device != "cuda":
        raise ConfigError("tune needs --device cuda: the CPU's kernels have nothing to choose")
    if config.batch_invariant:
        raise ConfigError("--batch-invariant uses no measured choices: leave it out")
    if config.gemm_strategy == "cublas":
        raise ConfigError("--gemm-strategy cublas leaves nothing to choose: tune cutlass or hybrid")
    planned = plan_model(config, read_model_config(config.model), {})
    products = _products(planned)
    total = sum(planned.device.weight_bytes(n.weights[0]) for n in products.values())
    done = 0
    measured: dict[str, list[str]] = {}
    for index, node in products.items():
        if progress:
            progress("measuring kernels", done, total)
        w = node.weights[0]
        text = planned.native.tune(planned.device, planned.sizes.kv_cache_dtype, index, _most_rows(planned, node))
        measured[f"{w.dtype} {w.n} {w.k}"] = text.splitlines()
        done += planned.device.weight_bytes(w)
    path = write_table(planned.device, config.gemm_strategy, measured)
    found = [line for lines in measured.values() for line in lines]
    lines = _table(found) if found else []
    return "\n".join([*lines, f"{len(found)} choices are faster than the built-in ones: {path}"])


def _products(planned: PlannedModel) -> dict[int, Node]:
    """Return the ops to measure by index: of each shape of weight, the one that may have the most rows."""
    by_shape: dict[tuple[str, int, int], int] = {}
    for i, n in enumerate(planned.plan.ops):
        if n.op.startswith("linear"):
            w = n.weights[0]
            known = by_shape.setdefault((w.dtype, w.n, w.k), i)
            if _most_rows(planned, n) > _most_rows(planned, planned.plan.ops[known]):
                by_shape[w.dtype, w.n, w.k] = i
    return {i: planned.plan.ops[i] for i in by_shape.values()}


def _most_rows(planned: PlannedModel, node: Node) -> int:
    sizes = planned.sizes
    return sizes.max_rows if node.outputs[0].rows == "rows" else sizes.max_num_batched_tokens


def _table(entries: list[str]) -> list[str]:
    rows = [_HEADER, *(tuple(line.split()) for line in entries)]
    widths = [max(len(r[c]) for r in rows) for c in range(len(_HEADER))]
    return ["  ".join(f"{cell:>{w}}" for cell, w in zip(r, widths, strict=True)).rstrip() for r in rows]

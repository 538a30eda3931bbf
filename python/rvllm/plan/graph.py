"""Trace a model's forward into a plan: a flat list of ops over symbolic matrices.

Every activation has a symbolic number of rows (tokens or wanted rows of a step) and fixed columns. Slicing columns,
`x[:, a:b]`, is a view and never an op. The builders below follow native/ops.def, which checks every op they append.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rvllm._native.ops import op_table

OPS = op_table()  # name -> OpSpec, from native/ops.def


@dataclass(eq=False, slots=True)
class Buffer:
    """A matrix of the arena, or an array of the step input (`source` names it; `group` is its cache group)."""

    name: str
    rows: str  # tokens | rows
    cols: int
    dtype: str
    source: str = "arena"
    group: int = 0


@dataclass(frozen=True, slots=True)
class Tensor:
    """Columns [start, start + cols) of a buffer."""

    buffer: Buffer
    start: int
    cols: int

    @property
    def rows(self) -> str:
        return self.buffer.rows

    @property
    def dtype(self) -> str:
        return self.buffer.dtype

    @property
    def name(self) -> str:
        b = self.buffer
        return b.name if self.cols == b.cols else f"{b.name}[{self.start}:{self.start + self.cols}]"

    def __getitem__(self, key: tuple[slice, slice]) -> Tensor:
        rows, cols = key
        if rows != slice(None):
            raise ValueError("rows cannot be sliced: how many there are is known per step")
        a, b, step = cols.indices(self.cols)
        if step != 1 or a >= b:
            raise ValueError(f"columns {cols} of {self.name} are not a run")
        return Tensor(self.buffer, self.start + a, b - a)


@dataclass(eq=False, slots=True)
class Weight:
    """A weight of the plan: tensors of the checkpoint stacked along n, or a constant computed at trace time.

    `order` says how rows are used, and so how a backend may lay them out: gate_up pairs row i with row n / 2 + i.
    """

    name: str
    format: str  # vector | dense
    dtype: str
    n: int
    k: int
    sources: tuple[tuple[str, int], ...] = ()  # (name in the checkpoint, rows)
    constant: np.ndarray | None = None
    order: str = "plain"  # | gate_up


@dataclass(eq=False, slots=True)
class Node:
    """One op. Absent optional operands are left out; outputs are always whole buffers."""

    op: str
    inputs: tuple[Tensor, ...]
    weights: tuple[Weight, ...]
    outputs: tuple[Tensor, ...]
    attrs: dict[str, int | float]
    layer: int | None = None  # of the model; None outside the layers


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """Layers that share one block table. `kind` is full: every past key is kept."""

    index: int
    n_layers: int
    n_kv_heads: int
    head_dim: int
    kind: str = "full"


@dataclass(eq=False, slots=True)
class Plan:
    """A traced model for one rank: ops in order, what they read from the step, and what they need in memory."""

    ops: list[Node] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    cache_groups: list[CacheGroup] = field(default_factory=list)
    logits: Tensor = field(init=False)
    rank: int = 0
    world: int = 1

    def weights(self) -> list[Weight]:
        """Return the weights in order of first use, each once."""
        return list(dict.fromkeys(w for node in self.ops for w in node.weights))

    def buffers(self) -> list[Buffer]:
        """Return the step inputs, then the arena's buffers in order of definition, each once."""
        tensors = [*self.inputs, *(t for node in self.ops for t in node.outputs)]
        return list(dict.fromkeys(t.buffer for t in tensors))


class Graph:
    """Builders of a plan, one per op. Names of weights are relative to the enclosing `scope`."""

    def __init__(self, weight_dtype: str, activation_dtype: str = "f32"):
        self.plan = Plan()
        self._weight_dtype = weight_dtype
        self._dtype = activation_dtype
        self._scope = ""
        self._layer: int | None = None
        self.token_ids = self._input("token_ids", "tokens")
        self.positions = self._input("positions", "tokens")
        self.logit_rows = self._input("logit_rows", "rows")
        self._slots: list[Tensor] = []

    # ---- what a plan declares ----

    def cache_group(self, n_layers: int, n_kv_heads: int, head_dim: int) -> CacheGroup:
        group = CacheGroup(len(self.plan.cache_groups), n_layers, n_kv_heads, head_dim)
        self.plan.cache_groups.append(group)
        self._slots.append(self._input("slots", "tokens", group.index))
        return group

    def dense(self, name: str, n: int, k: int) -> Weight:
        return Weight(name, "dense", self._weight_dtype, n, k, ((name, n),))

    def vector(self, name: str, n: int) -> Weight:
        return Weight(name, "vector", "f32", n, 1, ((name, n),))

    def constant(self, name: str, values: np.ndarray) -> Weight:
        return Weight(name, "vector", "f32", len(values), 1, constant=np.ascontiguousarray(values, np.float32))

    @contextmanager
    def scope(self, prefix: str) -> Iterator[None]:
        """Prefix names of weights; a last component that is a number is the layer."""
        last = prefix.rpartition(".")[2]
        self._scope, self._layer = prefix + ".", int(last) if last.isdigit() else None
        try:
            yield
        finally:
            self._scope, self._layer = "", None

    # ---- ops ----

    def embed(self, ids: Tensor, table: Weight, *, name: str) -> Tensor:
        return self._add("embed", [ids], [table], [self._new(name, "tokens", table.k)])

    def rms_norm(self, x: Tensor, module: str, eps: float, *, name: str) -> Tensor:
        weight = self.vector(f"{self._scope}{module}.weight", x.cols)
        return self._add("rms_norm", [x], [weight], [self._like(name, x)], eps=eps)

    def head_norm(self, x: Tensor, module: str, eps: float, head_dim: int, *, name: str) -> Tensor:
        weight = self.vector(f"{self._scope}{module}.weight", head_dim)
        return self._add("head_norm", [x], [weight], [self._like(name, x)], eps=eps, head_dim=head_dim)

    def linear(self, x: Tensor, module: str | Weight, n: int, bias: bool = False, *, name: str) -> Tensor:
        path = f"{self._scope}{module}"
        weight = module if isinstance(module, Weight) else self.dense(f"{path}.weight", n, x.cols)
        if (weight.n, weight.k) != (n, x.cols):
            raise ValueError(f"{weight.name} is [{weight.n}, {weight.k}], not [{n}, {x.cols}]")
        weights = [weight, self.vector(f"{path}.bias", n)] if bias else [weight]
        return self._add("linear", [x], weights, [self._new(name, x.rows, n)])

    def add(self, a: Tensor, b: Tensor, *, name: str) -> Tensor:
        return self._add("add", [a, b], [], [self._like(name, a, b)])

    def mul(self, a: Tensor, b: Tensor, *, name: str) -> Tensor:
        return self._add("mul", [a, b], [], [self._like(name, a, b)])

    def silu(self, x: Tensor, *, name: str) -> Tensor:
        return self._add("silu", [x], [], [self._like(name, x)])

    def rope_table(self, positions: Tensor, inv_freq: Weight, *, name: str) -> Tensor:
        out = Tensor(Buffer(name, positions.rows, 2 * inv_freq.n, "f32"), 0, 2 * inv_freq.n)
        return self._add("rope_table", [positions], [inv_freq], [out], rotary_dim=2 * inv_freq.n, rope_scale=1.0)

    def rope(self, x: Tensor, table: Tensor, head_dim: int, *, name: str) -> Tensor:
        return self._add("rope", [x, table], [], [self._like(name, x)], head_dim=head_dim, rotary_dim=table.cols)

    def kv_write(self, k: Tensor, v: Tensor, cache: CacheGroup, layer: int) -> None:
        inputs = (k, v, self._slots[cache.index])
        self._append(Node("kv_write", inputs, (), (), self._cache_attrs(cache, layer), self._layer))

    def attention(self, q: Tensor, cache: CacheGroup, layer: int, softmax_scale: float, *, name: str) -> Tensor:
        attrs = self._cache_attrs(cache, layer) | {
            "n_heads": q.cols // cache.head_dim,
            "softmax_scale": softmax_scale,
        }
        return self._add("attention", [q], [], [self._like(name, q)], **attrs)

    def take_rows(self, x: Tensor, rows: Tensor, *, name: str) -> Tensor:
        return self._add("take_rows", [x, rows], [], [self._new(name, rows.rows, x.cols)])

    # ---- construction ----

    @staticmethod
    def _cache_attrs(cache: CacheGroup, layer: int) -> dict[str, int | float]:
        return {
            "layer": layer,
            "group": cache.index,
            "n_kv_heads": cache.n_kv_heads,
            "head_dim": cache.head_dim,
        }

    def _input(self, source: str, rows: str, group: int = 0) -> Tensor:
        tensor = Tensor(Buffer(source, rows, 1, "i32", source, group), 0, 1)
        self.plan.inputs.append(tensor)
        return tensor

    def _new(self, name: str, rows: str, cols: int) -> Tensor:
        return Tensor(Buffer(name, rows, cols, self._dtype), 0, cols)

    def _like(self, name: str, *same: Tensor) -> Tensor:
        if len({(t.rows, t.cols, t.dtype) for t in same}) != 1:
            shapes = ", ".join(f"{t.name} [{t.rows}, {t.cols}] {t.dtype}" for t in same)
            raise ValueError(f"{name}: operands differ: {shapes}")
        return self._new(name, same[0].rows, same[0].cols)

    def _add(
        self, op: str, inputs: list[Tensor], weights: list[Weight], outputs: list[Tensor], **attrs: int | float
    ) -> Tensor:
        """Append an op of one output."""
        self._append(Node(op, tuple(inputs), tuple(weights), tuple(outputs), attrs, self._layer))
        return outputs[0]

    def _append(self, node: Node) -> None:
        check_node(node)
        self.plan.ops.append(node)


def check_node(node: Node) -> None:
    """Check a node's operands and attributes against ops.def. Raises ValueError naming what differs."""
    info = OPS.get(node.op)
    if info is None:
        raise ValueError(f"{node.op} is not in ops.def")
    for kind, names, given in (
        ("input", info.inputs, node.inputs),
        ("weight", info.weights, node.weights),
        ("output", info.outputs, node.outputs),
    ):
        if len(given) > len(names):
            raise ValueError(f"{node.op} takes {len(names)} {kind}s, not {len(given)}")
        for i, name in enumerate(names):
            if i >= len(given) and not name.endswith("?"):
                raise ValueError(f"{node.op} lacks its {kind} {name}")
    if set(node.attrs) - {"group"} != set(info.attrs):
        raise ValueError(f"{node.op} has attributes {sorted(node.attrs)}, ops.def says {sorted(info.attrs)}")

"""Rewrites of a plan, in order, each by name. None changes what the plan computes, only in how many ops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from rvllm.plan.graph import Buffer, Node, Plan, Tensor, Weight, check_node

ROW_WISE = frozenset({"linear", "rms_norm", "head_norm", "add", "mul", "silu"})  # row i of y needs row i of x only


class Edit:
    """One pass over a plan: who makes and who reads each buffer. Replacements take effect in apply()."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.maker: dict[Buffer, Node] = {t.buffer: n for n in plan.ops for t in n.outputs}
        self.readers: dict[Buffer, list[Node]] = defaultdict(list)
        for n in plan.ops:
            for t in n.inputs:
                if t is not None:
                    self.readers[t.buffer].append(n)
        self._new: dict[Node, Node | None] = {}
        self._moved: dict[Buffer, Tensor] = {}

    def made_by(self, op: str, t: Tensor | None) -> Node | None:
        """Return the op that makes `t`, if it is an `op`."""
        node = self.maker.get(t.buffer) if t is not None else None
        return node if node is not None and node.op == op else None

    def only_reader(self, op: str, t: Tensor) -> Node | None:
        """Return the one op that reads the buffer of `t`, if it is an `op`."""
        readers = self.readers[t.buffer]
        return readers[0] if len(readers) == 1 and readers[0].op == op else None

    def replace(self, old: list[Node], new: Node, at: Node) -> None:
        """Put `new` in the place of `at`; drop all of `old`."""
        check_node(new)
        self._new.update(dict.fromkeys(old))
        self._new[at] = new

    def move(self, buffer: Buffer, to: Tensor) -> None:
        """Let every reader of `buffer` read `to`."""
        self._moved[buffer] = to

    def apply(self) -> None:
        def resolve(t: Tensor | None) -> Tensor | None:
            if t is None or t.buffer not in self._moved:
                return t
            to = self._moved[t.buffer]
            return Tensor(to.buffer, to.start + t.start, t.cols)

        ops = [n for old in self.plan.ops if (n := self._new.get(old, old)) is not None]
        for n in ops:
            n.inputs = tuple(resolve(t) for t in n.inputs)
        self.plan.ops = ops


def early_rows(e: Edit) -> None:
    """take_rows after row-wise ops -> take_rows before them: the last layer's products see wanted rows only."""
    for take in [n for n in e.plan.ops if n.op == "take_rows"]:
        late = {take}
        for n in reversed(e.plan.ops):
            readers = [r for t in n.outputs for r in e.readers[t.buffer]]
            if n.op in ROW_WISE and readers and late.issuperset(readers):
                late.add(n)
        late.remove(take)
        moved = [n for n in e.plan.ops if n in late]
        taken: dict[Tensor, Node] = {}
        for x in [t for n in moved for t in n.inputs if e.maker[t.buffer] not in late]:
            y = Tensor(Buffer(f"{x.buffer.name}_rows", "rows", x.cols, x.dtype), 0, x.cols)
            taken.setdefault(x, Node("take_rows", (x, take.inputs[1]), (), (y,), {}, moved[0].layer))
        for n in moved:
            n.inputs = tuple(taken[t].outputs[0] if t in taken else t for t in n.inputs)
            for t in n.outputs:
                t.buffer.rows = "rows"
        if moved:
            first = e.plan.ops.index(moved[0])
            e.plan.ops[first:first] = taken.values()
            e.plan.ops.remove(take)
            e.move(take.outputs[0].buffer, take.inputs[0])


def merge_weights(weights: list[Weight | None], name: str) -> Weight | None:
    """Stack weights along n."""
    if weights[0] is None:
        return None
    sources = tuple(s for w in weights for s in w.sources)
    return Weight(name, weights[0].format, weights[0].dtype, sum(w.n for w in weights), weights[0].k, sources)


def merge_linears(e: Edit, linears: list[Node | None], module: str, name: str) -> None:
    """Replace linears of one input by one linear, whose output they become columns of."""
    if None in linears or len({n.inputs[0] for n in linears}) > 1 or len({n.weights[1] is None for n in linears}) > 1:
        return
    first = min(linears, key=e.plan.ops.index)
    prefix = first.weights[0].name.rsplit(".", 2)[0]
    weights = (
        merge_weights([n.weights[0] for n in linears], f"{prefix}.{module}.weight"),
        merge_weights([n.weights[1] for n in linears], f"{prefix}.{module}.bias"),
    )
    x = first.inputs[0]
    cols = [n.outputs[0].cols for n in linears]
    y = Tensor(Buffer(name, x.rows, sum(cols), linears[0].outputs[0].dtype), 0, sum(cols))
    for i, n in enumerate(linears):
        e.move(n.outputs[0].buffer, Tensor(y.buffer, sum(cols[:i]), cols[i]))
    e.replace(linears, Node("linear", (x,), weights, (y,), {}, first.layer), at=first)


def merged_qkv(e: Edit) -> None:
    """linear q, linear k, linear v of one input -> one linear."""

    def linear_behind(t: Tensor) -> Node | None:
        node = e.maker.get(t.buffer)
        while node is not None and node.op in ("rope", "head_norm"):
            node = e.maker.get(node.inputs[0].buffer)
        return node if node is not None and node.op == "linear" else None

    written = {cache_of(n): n for n in e.plan.ops if n.op == "kv_write"}
    for n in e.plan.ops:
        if n.op == "attention" and cache_of(n) in written:
            k, v, _ = written[cache_of(n)].inputs
            merge_linears(e, [linear_behind(t) for t in (n.inputs[0], k, v)], "qkv_proj", "qkv")


def merged_gate_up(e: Edit) -> None:
    """linear gate, linear up of one input, joined by silu and mul -> one linear."""
    for n in e.plan.ops:
        if n.op == "mul" and (silu := e.made_by("silu", n.inputs[0])):
            linears = [e.made_by("linear", silu.inputs[0]), e.made_by("linear", n.inputs[1])]
            merge_linears(e, linears, "gate_up_proj", "gate_up")


def silu_mul(e: Edit) -> None:
    """mul(silu(gate), up) -> silu_mul(gate, up)."""
    for n in e.plan.ops:
        silu = e.made_by("silu", n.inputs[0]) if n.op == "mul" else None
        if silu and e.only_reader("mul", silu.outputs[0]):
            e.replace([silu], Node("silu_mul", (silu.inputs[0], n.inputs[1]), (), n.outputs, {}, n.layer), at=n)


def residual_norm(e: Edit) -> None:
    """rms_norm(add(residual, x)) -> add_rms_norm, which gives the sum as well."""
    for n in e.plan.ops:
        add = e.made_by("add", n.inputs[0]) if n.op == "rms_norm" else None
        if add:
            residual, x = add.inputs
            outputs = (n.outputs[0], add.outputs[0])
            e.replace([n], Node("add_rms_norm", (x, residual), n.weights, outputs, n.attrs, add.layer), at=add)


def rope_kv_write(e: Edit) -> None:
    """head_norm of q and k (or of neither), rope of both, kv_write -> one op."""
    queries = {cache_of(n): n.inputs[0] for n in e.plan.ops if n.op == "attention"}
    for n in [n for n in e.plan.ops if n.op == "kv_write"]:
        ropes = [e.made_by("rope", t) for t in (queries.get(cache_of(n)), n.inputs[0])]
        if None in ropes or ropes[0].inputs[1] != ropes[1].inputs[1]:
            continue
        norms = [e.made_by("head_norm", r.inputs[0]) for r in ropes]
        q, k = ((norm or r).inputs[0] for norm, r in zip(norms, ropes, strict=True))
        heads = ropes[0].outputs[0].cols // ropes[0].attrs["head_dim"]
        attrs = n.attrs | {"eps": 0.0, "n_heads": heads, "rotary_dim": ropes[0].attrs["rotary_dim"]}
        if all(norms) and norms[0].attrs == norms[1].attrs:
            attrs["eps"] = norms[0].attrs["eps"]
        elif any(norms):
            continue
        new = Node(
            "rope_kv_write",
            (q, k, n.inputs[1], ropes[0].inputs[1], n.inputs[2]),
            tuple(norm.weights[0] for norm in norms if norm),
            ropes[0].outputs,
            attrs,
            n.layer,
        )
        e.replace([*ropes, *(norm for norm in norms if norm), n], new, at=n)


def cache_of(n: Node) -> tuple[int | float, int | float]:
    return n.attrs["group"], n.attrs["layer"]


REWRITES: tuple[Callable[[Edit], None], ...] = (
    early_rows,
    merged_qkv,
    merged_gate_up,
    silu_mul,
    residual_norm,
    rope_kv_write,
)


def fuse(plan: Plan, rewrites: tuple[Callable[[Edit], None], ...] = REWRITES) -> Plan:
    """Apply rewrites in order, in place; return the plan."""
    for rewrite in rewrites:
        edit = Edit(plan)
        rewrite(edit)
        edit.apply()
    return plan

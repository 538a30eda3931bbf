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
                self.readers[t.buffer].append(n)
        self._new: dict[Node, Node | None] = {}
        self._moved: dict[Buffer, Tensor] = {}

    def made_by(self, op: str, t: Tensor) -> Node | None:
        """Return the op that makes `t`, if it is an `op`."""
        node = self.maker.get(t.buffer)
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
        def resolve(t: Tensor) -> Tensor:
            to = self._moved.get(t.buffer)
            return t if to is None else Tensor(to.buffer, to.start + t.start, t.cols)

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


def merge_weights(weights: tuple[Weight, ...], name: str) -> Weight:
    """Stack weights along n."""
    first = weights[0]
    sources = tuple(s for w in weights for s in w.sources)
    return Weight(name, first.format, first.dtype, sum(w.n for w in weights), first.k, sources)


def merge_linears(linears: list[Node], module: str) -> tuple[Weight, ...] | None:
    """Stack the weights of linears of one input, all with or all without a bias; None if they are not that."""
    if len({n.inputs[0] for n in linears}) > 1 or len({len(n.weights) for n in linears}) > 1:
        return None
    path = linears[0].weights[0].name.rsplit(".", 2)[0] + "." + module
    stacks = zip(*(n.weights for n in linears), strict=True)
    return tuple(merge_weights(w, f"{path}.{kind}") for w, kind in zip(stacks, ("weight", "bias"), strict=False))


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
            linears = [linear for t in (n.inputs[0], k, v) if (linear := linear_behind(t))]
            weights = merge_linears(linears, "qkv_proj") if len(linears) == 3 else None
            if weights:
                x, cols = linears[0].inputs[0], [n.outputs[0].cols for n in linears]
                y = Tensor(Buffer("qkv", x.rows, sum(cols), linears[0].outputs[0].dtype), 0, sum(cols))
                for i, linear in enumerate(linears):
                    e.move(linear.outputs[0].buffer, Tensor(y.buffer, sum(cols[:i]), cols[i]))
                first = min(linears, key=e.plan.ops.index)
                e.replace(linears, Node("linear", (x,), weights, (y,), {}, first.layer), at=first)


def linear_silu_mul(e: Edit) -> None:
    """linear gate, linear up of one input, silu, mul -> one op, whose weight pairs the rows of gate and up."""
    for n in [n for n in e.plan.ops if n.op == "mul"]:
        silu = e.made_by("silu", n.inputs[0])
        gate = e.made_by("linear", silu.inputs[0]) if silu else None
        up = e.made_by("linear", n.inputs[1])
        if not (silu and gate and up) or any(len(e.readers[m.outputs[0].buffer]) > 1 for m in (silu, gate, up)):
            continue
        weights = merge_linears([gate, up], "gate_up_proj")
        if weights:
            weights[0].order = "gate_up"
            new = Node("linear_silu_mul", gate.inputs, weights, n.outputs, {}, n.layer)
            e.replace([silu, gate, up], new, at=n)


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
    for n in [n for n in e.plan.ops if n.op == "kv_write" and cache_of(n) in queries]:
        ropes = [r for t in (queries[cache_of(n)], n.inputs[0]) if (r := e.made_by("rope", t))]
        if len(ropes) < 2 or ropes[0].inputs[1] != ropes[1].inputs[1]:
            continue
        norms = [norm for r in ropes if (norm := e.made_by("head_norm", r.inputs[0]))]
        if len(norms) == 1 or (norms and norms[0].attrs != norms[1].attrs):
            continue
        q, k = ((norms or ropes)[i].inputs[0] for i in range(2))
        new = Node(
            "rope_kv_write",
            (q, k, n.inputs[1], ropes[0].inputs[1], n.inputs[2]),
            tuple(norm.weights[0] for norm in norms),
            ropes[0].outputs,
            n.attrs
            | {
                "eps": norms[0].attrs["eps"] if norms else 0.0,
                "n_heads": q.cols // int(n.attrs["head_dim"]),
                "rotary_dim": ropes[0].attrs["rotary_dim"],
            },
            n.layer,
        )
        e.replace([*ropes, *norms, n], new, at=n)


def linear_rope_kv_write(e: Edit) -> None:
    """rope_kv_write, without norms, of all columns of a linear -> one op."""
    for n in [n for n in e.plan.ops if n.op == "rope_kv_write" and not n.weights]:
        q, k, v, table, slots = n.inputs
        linear = e.made_by("linear", q)
        if linear is None:
            continue
        (qkv,) = linear.outputs
        a, b = q.cols, q.cols + k.cols
        whole = b < qkv.cols and (q, k, v) == (qkv[:, :a], qkv[:, a:b], qkv[:, b:])
        if whole and all(r is n for r in e.readers[qkv.buffer]):
            attrs = {name: value for name, value in n.attrs.items() if name != "eps"}
            inputs, outputs = (linear.inputs[0], table, slots), (n.outputs[0], qkv)
            new = Node("linear_rope_kv_write", inputs, linear.weights, outputs, attrs, n.layer)
            e.replace([linear], new, at=n)


def cache_of(n: Node) -> tuple[int | float, int | float]:
    return n.attrs["group"], n.attrs["layer"]


REWRITES: tuple[Callable[[Edit], None], ...] = (
    early_rows,
    merged_qkv,
    linear_silu_mul,
    residual_norm,
    rope_kv_write,
    linear_rope_kv_write,
)


def fuse(plan: Plan, rewrites: tuple[Callable[[Edit], None], ...] = REWRITES) -> Plan:
    """Apply rewrites in order, in place; return the plan."""
    for rewrite in rewrites:
        edit = Edit(plan)
        rewrite(edit)
        edit.apply()
    return plan

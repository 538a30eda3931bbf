"""Time attention on CUDA at the shape of Qwen2.5-7B (28 query heads, 4 of keys, head size 128, bf16).

    PYTHONPATH=python python bench/cuda_attention.py

Prints microseconds per call, GB/s of keys and values read (decode) and TFLOP/s of visible pairs (prefill). Each
shape is first checked against a float64 sum over some of its rows.
"""

from __future__ import annotations

import numpy as np

from rvllm._native import opcall, operands

N_HEADS, N_KV_HEADS, HEAD_DIM, BLOCK = 28, 4, 128, 16
DECODE = [
    *((n, 160) for n in (1, 8, 32)),
    *((n, keys) for n in (64, 128, 256) for keys in (32, 128, 256)),
    (1, 300),
    (1, 1024),
    (1, 8192),
    (1, 131072),
    *((n, 1024) for n in (16, 64, 128, 256)),
]
PREFILL = [[(128, 128)], [(512, 512)], [(2048, 2048)], [(8192, 8192)], [(2048, 2048)] * 4, [(512, 16384)]]
MIXED = [[(1, 1024)] * 64, [(512, 2048)], [(1, 1024)] * 64 + [(512, 2048)]]  # apart, then in one step
UNEVEN = [(1, 1 + 37 * s % 500) for s in range(256)]  # 64,000 keys in all


def bf16(x: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def widen(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def check(q, y, k, v, table, last: int) -> float:
    """Return the relative error of one query row that sees keys 0..last."""
    keys, values = (
        widen(c[0, table]).transpose(1, 0, 2, 3).reshape(N_KV_HEADS, -1, HEAD_DIM)[:, : last + 1] for c in (k, v)
    )
    heads = widen(q).reshape(N_KV_HEADS, -1, HEAD_DIM)
    s = np.einsum("kgd,knd->kgn", heads, keys, optimize=True) * HEAD_DIM**-0.5
    p = np.exp(s - s.max(-1, keepdims=True))
    want = np.einsum("kgn,knd->kgd", p / p.sum(-1, keepdims=True), values, optimize=True).ravel()
    return float(np.linalg.norm(widen(y) - want) / np.linalg.norm(want))


def run(ops: opcall.Ops, seqs: list[tuple[int, int]]) -> tuple[float, float, float, float]:
    """Time sequences of (new tokens, keys); return seconds, bytes of keys and values, operations, error."""
    rng = np.random.default_rng(0)
    n_blocks = [-(-keys // BLOCK) for _, keys in seqs]
    order = rng.permutation(sum(n_blocks))
    noise = bf16(rng.standard_normal((1 << 20) + 4099, dtype=np.float32))
    shape = (1, sum(n_blocks), N_KV_HEADS, BLOCK, HEAD_DIM)
    k, v = (np.resize(np.roll(noise, i), shape) for i in (0, 77777))
    tables = np.split(order, np.cumsum(n_blocks)[:-1])
    starts = np.cumsum([0, *(n for n, _ in seqs)])
    step = operands.Step(
        query_start=starts,
        positions=np.concatenate([np.arange(keys - n, keys) for n, keys in seqs]),
        tables=[t.tolist() for t in tables],
    )
    q = bf16(rng.standard_normal((starts[-1], N_HEADS * HEAD_DIM), dtype=np.float32))
    y = np.zeros_like(q)
    attrs = {
        "layer": 0,
        "n_heads": N_HEADS,
        "n_kv_heads": N_KV_HEADS,
        "head_dim": HEAD_DIM,
        "softmax_scale": HEAD_DIM**-0.5,
    }
    call = ops.bind("attention", [q], [], [y], attrs, step, operands.KvCache(k, v))
    call.run()
    error = max(
        check(q[starts[s] + t], y[starts[s] + t], k, v, tables[s], keys - n + t)
        for s, (n, keys) in list(enumerate(seqs))[:: max(1, len(seqs) - 1)]
        for t in {0, n // 2, n - 1}
    )
    seconds = min(call.time_many(50) for _ in range(3))
    n_bytes = 4.0 * N_KV_HEADS * HEAD_DIM * sum(keys for _, keys in seqs)
    flops = 4.0 * N_HEADS * HEAD_DIM * sum(n * (keys - n) + n * (n + 1) / 2 for n, keys in seqs)
    return seconds, n_bytes, flops, error


def main() -> None:
    ops = opcall.Cuda()
    print(f"{'shape':<28}{'us':>10}{'GB/s':>8}{'TFLOP/s':>9}{'error':>10}")
    shapes = [(f"decode {n} at {keys}", [(1, keys)] * n) for n, keys in DECODE]
    shapes.append((f"decode {len(UNEVEN)} at 1 to 500", UNEVEN))
    shapes += [(f"mixed {len(m)} sequences, {m[-1][0]} at {m[-1][1]}", m) for m in MIXED]
    shapes += [(f"prefill {len(p)} x {p[0][0]} at {p[0][1]}", p) for p in PREFILL]
    for label, seqs in shapes:
        seconds, n_bytes, flops, error = run(ops, seqs)
        if not error < 1e-2:
            raise SystemExit(f"{label}: wrong, error {error}")
        rates = f"{n_bytes / seconds / 1e9:>8.0f}{flops / seconds / 1e12:>9.0f}"
        print(f"{label:<28}{seconds * 1e6:>10.1f}{rates}{error:>10.1e}")


if __name__ == "__main__":
    main()

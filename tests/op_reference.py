"""What ops compute, in NumPy and float64, and the 16-bit types that NumPy has (float16) or not (bf16: its bits)."""

from __future__ import annotations

from typing import Any

import numpy as np

Rng = np.random.Generator
Array = np.ndarray


def to_bf16(x: Array) -> Array:
    """Round float32 to bf16 bits, to nearest even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def narrow(x: Array, dtype: str) -> Array:
    return to_bf16(x) if dtype == "bf16" else x.astype(np.float16 if dtype == "f16" else np.float32)


def widen(x: Array) -> Array:
    """Return the float32 values of an array of any of the three types."""
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x.astype(np.float32)


def normal(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


# ---- references -------------------------------------------------------------------------------------


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope_table(positions: Array, inv_freq: Array, scale: float) -> Array:
    """The angle is a float32 product, as in transformers."""
    angle = (positions.astype(np.float32)[:, None] * inv_freq).astype(np.float64)
    return np.concatenate([np.cos(angle), np.sin(angle)], 1) * np.float64(np.float32(scale))


def rope(x: Array, table: Array, head_dim: int) -> Array:
    heads = x.astype(np.float64).reshape(len(x), -1, head_dim)
    half = table.shape[1] // 2
    c, s = table[:, None, :half].astype(np.float64), table[:, None, half:].astype(np.float64)
    a, b = heads[..., :half], heads[..., half : 2 * half]
    return np.concatenate([a * c - b * s, b * c + a * s, heads[..., 2 * half :]], -1).reshape(x.shape)


def silu(x: Array) -> Array:
    x = x.astype(np.float64)
    return x / (1 + np.exp(np.minimum(-x, 700)))


def attention(q: Array, k: Array, v: Array, layer: int, step: dict[str, Any], n_heads: int, scale: float) -> Array:
    """Causal attention over the blocks of step["tables"], in float64."""
    _, _, n_kv_heads, _, head_dim = k.shape
    group = n_heads // n_kv_heads
    out = np.empty((len(q), n_heads * head_dim))
    positions, starts = step["positions"], step["query_start"]
    for s, table in enumerate(step["tables"]):
        first, end = starts[s], starts[s + 1]
        if first == end:
            continue
        n = positions[end - 1] + 1
        # [kv_head, key, head_dim]
        keys, values = (
            widen(c[layer][table]).transpose(1, 0, 2, 3).reshape(n_kv_heads, -1, head_dim)[:, :n].astype(np.float64)
            for c in (k, v)
        )
        queries = q[first:end].astype(np.float64).reshape(end - first, n_kv_heads, group, head_dim)
        scores = np.einsum("tkgd,knd->kgtn", queries, keys, optimize=True) * scale
        scores[..., np.arange(n)[None, :] > np.asarray(positions[first:end])[:, None]] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("kgtn,knd->tkgd", p / p.sum(-1, keepdims=True), values, optimize=True)
        out[first:end] = y.reshape(end - first, -1)
    return out

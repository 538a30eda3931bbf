"""Sampling primitives on the CPU, usable alone: NumPy in, NumPy out, no GIL held, any thread count.

    import numpy as np
    from rvllm import sampling

    logits = np.random.randn(4, 32000).astype(np.float32)
    tokens = sampling.sample_batch(logits, temperature=0.8, top_p=0.9, seed=[1, 2, 3, 4])

Functions named apply_* change the logits in place. See their docstrings, and `rvllm._native.sampling`
for what they share: accepted arrays, the order of tokens, rows that hold a NaN.
"""

from rvllm._native.sampling import (
    apply_bitmask,
    apply_min_p,
    apply_penalties,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    argmax,
    log_softmax,
    multinomial,
    sample_batch,
    softmax,
    top_logprobs,
)

__all__ = [
    "apply_bitmask",
    "apply_min_p",
    "apply_penalties",
    "apply_temperature",
    "apply_top_k",
    "apply_top_p",
    "argmax",
    "log_softmax",
    "multinomial",
    "sample_batch",
    "softmax",
    "top_logprobs",
]

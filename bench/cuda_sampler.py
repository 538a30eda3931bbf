"""Time the sampler of a CUDA device: microseconds per call, of the device and of the host.

    PYTHONPATH=python python bench/cuda_sampler.py

Logits are normal, as random weights give them, vocabulary 152064. `device`: calls one behind the other, launch
included; `host`: one call to an idle device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rvllm._native.device import Device
from rvllm._native.device_sampler import DeviceSampler

VOCAB = 152064
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "greedy": ({"temperature": 0}, -1),
    "temperature": ({"temperature": 0.8}, -1),
    "top-p 0.95": ({"temperature": 0.8, "top_p": 0.95}, -1),
    "top-k 50": ({"temperature": 0.8, "top_k": 50}, -1),
    "top-k 50, top-p 0.95": ({"temperature": 0.8, "top_k": 50, "top_p": 0.95}, -1),
    "min-p 0.05": ({"temperature": 0.8, "min_p": 0.05}, -1),
    "penalties": ({"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.05}, -1),
    "greedy, 5 log-probabilities": ({"temperature": 0}, 5),
}
N_ROWS = (1, 16, 64, 256)


def main() -> None:
    device = Device("cuda")
    most = max(N_ROWS)
    sampler = DeviceSampler(device, most, VOCAB, 20, most)
    rng = np.random.default_rng(0)
    for start in range(0, most, 32):
        chunk = rng.standard_normal((32, VOCAB), dtype=np.float32)
        if start == 0:
            logits = np.concatenate([chunk] * (most // 32))
        else:
            logits[start : start + 32] = chunk
    sampler.write(logits)
    print(f"{'rows':<30}" + "".join(f"{n:>8} {'host':>5}" for n in N_ROWS))
    for name, (params, n_top) in CASES.items():
        for slot in range(most):
            sampler.add(slot, list(range(100)), seed=slot, **params)
        line = f"{name:<30}"
        for n in N_ROWS:
            rows = [{"logit_row": s, "slot": s, "token_index": 3, "n_top": n_top} for s in range(n)]
            sampler.time(rows, 5)
            device_us, host_us = min(sampler.time(rows, 40) for _ in range(3))
            line += f"{device_us:>8.1f} {host_us:>5.1f}"
        print(line)


if __name__ == "__main__":
    main()

"""`rvllm info`: this machine, the backends it can use, and which kernels each of them has."""

from __future__ import annotations

import os
import platform

import rvllm
from rvllm._native.device import Device
from rvllm._native.ops import op_table
from rvllm.memory import format_bytes

# Attributes of a common model: heads of 128, eight of them for keys and values.
_ATTRS = {"n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "rotary_dim": 128, "eps": 1e-6, "softmax_scale": 0.088}


def text() -> str:
    """Return the report."""
    device = Device("cpu")
    total, available = format_bytes(device.memory_total()), format_bytes(device.memory_available())
    cuda = _cuda()
    lines = [
        f"rvllm      {rvllm.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"processor  {_processor()}, {os.cpu_count()} logical",
        f"memory     {available} available of {total}",
        "",
        f"cpu        {device.description}",
        f"cuda       {cuda if isinstance(cuda, str) else cuda.description}",
        "",
        "kernels of the cpu backend, by type of weights and cache:",
        *_op_matrix(device),
    ]
    if not isinstance(cuda, str):
        lines += ["", "kernels of the cuda backend:", *_op_matrix(cuda)]
    return "\n".join(lines)


def _cuda() -> Device | str:
    """Return the CUDA device, or why there is none."""
    try:
        return Device("cuda")
    except ValueError as e:
        return str(e)


def _op_matrix(device: Device) -> list[str]:
    weights = ("f32", "f16", "bf16")
    rows = [("op", *weights)]
    for op, spec in op_table().items():
        attrs = {k: v for k, v in _ATTRS.items() if k in spec.attrs}
        rows.append((op, *(device.kernel(op, device.activation_dtype(w), w, attrs) or "-" for w in weights)))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"

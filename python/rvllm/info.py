"""`rvllm info`: this machine, the backends it can use, and which ops each of them has."""

from __future__ import annotations

import os
import platform

import rvllm


def text() -> str:
    """Return the report."""
    from rvllm._native import opcall

    lines = [
        f"rvllm {rvllm.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"processor   {_cpu_name()}",
        f"threads     {opcall.usable_cpus()} usable of {os.cpu_count()}",
        f"memory      {_gib(opcall.memory_available())} available of {_gib(opcall.memory_total())}",
        f"cpu         instruction set {opcall.isa()}",
        "",
        "ops of the cpu backend, by weight type (. needs no weight):",
        "",
    ]
    lines += _op_matrix(opcall)
    return "\n".join(lines)


def _op_matrix(opcall) -> list[str]:
    types = ("f32", "f16", "bf16")
    rows = [("op", *types)]
    for name, kernels in opcall.op_matrix(types).items():
        rows.append((name, *(k or "missing" for k in kernels)))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"

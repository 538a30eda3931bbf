"""Measured choices of CUDA kernels: `rvllm tune` writes them to a file, every later start reads it.

A file is for one build of the CUDA library on one kind of GPU with one driver: its name is a SHA-256 of all that, so
that what was measured with another never counts. Its lines are described in cuda/gemm/table.h.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rvllm import _native

if TYPE_CHECKING:
    from rvllm._native.device import Device

log = logging.getLogger("rvllm")

_FORMAT = 1
_LIBRARY = "librvllm_cuda.so"


def cublas_library() -> str:
    """Return the file of cuBLASLt that came with the extra `cublas`, or the name under which a toolkit installs it."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    found = [file for folder in folders for file in folder.glob("*/lib/libcublasLt.so.1[3-9]")]
    return str(max(found, key=lambda file: file.suffix)) if found else "libcublasLt.so.13"


def cache_directory() -> Path:
    """Return the directory of everything that rvllm can make again."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "rvllm"


def table_path(device: Device, gemm_strategy: str) -> Path:
    """Return the file of the choices measured with this library, device, driver and strategy."""
    library = hashlib.sha256((Path(_native.__file__).parent / _LIBRARY).read_bytes()).hexdigest()
    valid_for = f"{_FORMAT}\n{library}\n{device.description}\n{gemm_strategy}\n"
    return cache_directory() / f"linear-{hashlib.sha256(valid_for.encode()).hexdigest()}.txt"


def use_table(device: Device, gemm_strategy: str) -> None:
    """Take the measured choices for this device into use, if there are any; a file that is not right is ignored."""
    if not cache_directory().is_dir():
        return
    path = table_path(device, gemm_strategy)
    try:
        text = path.read_text()
        device.use_choices(text)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as e:  # ValueError: also of a file that is no text
        log.warning("measured kernel choices are ignored: %s: %s", path, e)
        return
    log.info("measured kernel choices: %d from %s", len(_entries(text)), path)


def write_table(device: Device, gemm_strategy: str, measured: dict[str, list[str]]) -> Path:
    """Write the entries found for each weight, named as in _weight(); keep those of other weights. Return the file."""
    path = table_path(device, gemm_strategy)
    try:
        old = path.read_text()
        device.use_choices(old)
    except (OSError, ValueError):
        old = ""
    kept = [line for line in _entries(old) if _weight(line) not in measured]
    entries = sorted(kept + [line for lines in measured.values() for line in lines])
    head = f"# Measured by `rvllm tune` for {device.description}, --gemm-strategy {gemm_strategy}."
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text("\n".join([head, _COLUMNS, *entries, f"end {len(entries)}", ""]))
    temporary.replace(path)
    return path


_COLUMNS = "# type N K first-M last-M kernel tokens split stages us built-in-us"


def _entries(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith(("#", "end"))]


def _weight(line: str) -> str:
    """Return type, N and K of an entry."""
    return " ".join(line.split()[:3])

"""What the op tests share: guarded outputs, views, and a second run on other instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from rvllm import _native
from rvllm._native import opcall

SENTINEL = np.float32(12345.678)
SETS = ["generic", "avx2", "avx512", "avx512_bf16"]
OTHER_SETS = [] if "RVLLM_ISA" in os.environ else SETS[: SETS.index(opcall.isa_in_use())]
first_run_only = pytest.mark.skipif("RVLLM_ISA" in os.environ, reason="the run on the machine's own set has it")


def skip_without_gpu(e: ValueError) -> NoReturn:
    """Skip, for a CUDA backend that could not be made. With a GPU and the library both there, that is a failure."""
    library = Path(_native.__file__).parent / "librvllm_cuda.so"
    if Path("/dev/nvidiactl").exists() and library.exists():
        raise e
    pytest.skip(str(e))


def view_of(array: np.ndarray, gap: int) -> np.ndarray:
    """Return the array as columns of a wider one filled with NaN."""
    wide = np.full((array.shape[0], array.shape[1] + 2 * gap), np.nan, array.dtype)
    wide[:, gap : gap + array.shape[1]] = array
    return wide[:, gap : gap + array.shape[1]]


class Output:
    """NaN, amid guard rows (and columns, where gap > 0) that nobody may touch."""

    def __init__(self, shape: tuple[int, int], gap: int) -> None:
        self.inside = (slice(1, 1 + shape[0]), slice(gap, gap + shape[1]))
        self.memory = np.full((shape[0] + 2, shape[1] + 2 * gap), SENTINEL)
        self.memory[self.inside] = np.nan
        self.array = self.memory[self.inside]

    def check_guards(self) -> None:
        rest = self.memory.copy()
        rest[self.inside] = SENTINEL
        assert (rest == SENTINEL).all(), "wrote outside its output"


def run_again(set_: str, file: str, *arguments: str) -> None:
    """Run a test file in a process whose kernels are those of another instruction set."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, *arguments],
        env={**os.environ, "RVLLM_ISA": set_},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout[-4000:]

"""The scheduler allocates nothing while sequences decode."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import pytest

COUNTING_MALLOC = """
#include <stddef.h>
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long n_calls;
long count_calls(void) { return n_calls; }
void *malloc(size_t n) { ++n_calls; return __libc_malloc(n); }
void *calloc(size_t k, size_t n) { ++n_calls; return __libc_calloc(k, n); }
void *realloc(void *p, size_t n) { ++n_calls; return __libc_realloc(p, n); }
"""

DECODE = """
import ctypes
import sys
from rvllm._native.blocks import BlockManager
from rvllm._native.scheduler_driver import SchedulerDriver
from rvllm._native.scheduler import Scheduler

count_calls = ctypes.CDLL(None).count_calls
blocks = BlockManager(4096, n_host_blocks=int(sys.argv[1]))
scheduler = Scheduler(blocks, max_num_seqs=32, max_num_batched_tokens=2048, max_model_len=4096)
driver = SchedulerDriver(scheduler)
driver.fill(32, 2040, 1)  # fills the prefix cache, so that what follows evicts
driver.time_steps(40)
driver.fill(32, 40, 1500)
driver.time_steps(100)
for n_steps in (10, 1010):
    before = count_calls()
    driver.time_steps(n_steps)
    print(count_calls() - before)
assert scheduler.n_running == 32
assert (blocks.n_swapped_out > 1000) == (blocks.n_host_blocks > 0)
"""


@pytest.mark.parametrize("n_host_blocks", [0, 3000])
def test_nothing_is_allocated_while_sequences_decode(tmp_path, n_host_blocks):
    source, library = tmp_path / "malloc.c", tmp_path / "malloc.so"
    source.write_text(COUNTING_MALLOC)
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.libc_ver()[0] != "glibc":
        pytest.skip("needs a C compiler and glibc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    env = os.environ | {"LD_PRELOAD": str(library)}
    run = subprocess.run(
        [sys.executable, "-c", DECODE, str(n_host_blocks)],
        env=env,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    few, many = (int(n) for n in run.stdout.split())
    assert few > 0, "nothing was counted"
    assert many - few < 10, f"{many - few} more allocations in 1,000 more steps of 32 sequences"

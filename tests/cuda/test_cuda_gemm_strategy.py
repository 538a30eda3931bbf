"""Products by cuBLASLt, alone and beside our own kernels: ops, models, captured steps; measured choices of kernels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_harness import CHECKED, DTYPES, GAP, LONG_NAMES, check_against_cpu, cublas_options, half, has_kernel
from test_cuda_models import CHANGES, CHUNKINGS, TOLERANCE, error, make_pair, run_chunks, tokens_of

import tiny
from cases import Case, narrow, normal, widen
from rvllm import kernel_table
from rvllm._native import opcall
from rvllm._native.device import Device

STRATEGIES = ("cublas", "hybrid")


@pytest.fixture(scope="module", params=STRATEGIES)
def options(request, cuda: opcall.Ops) -> dict[str, str]:
    return cublas_options(request.param)


@pytest.fixture(scope="module")
def ops(options) -> opcall.Ops:
    return opcall.Cuda(**options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [0, GAP], ids=["whole", "view"])
@pytest.mark.parametrize(
    "case", [c for c in CHECKED if has_kernel(c) and c.op.startswith(("linear", "embed"))], ids=str
)
def test_op_against_cpu(ops: opcall.Ops, cpu: opcall.Cpu, case: Case, gap: int, dtype: str) -> None:
    """A product is rounded before its epilogue: three roundings more of gate, up and their product."""
    check_against_cpu(ops, cpu, case, gap, dtype, rounded_products=4.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 7, 64, 65, 100, 256, 300, 700])
@pytest.mark.parametrize("out", ["f32", "same"])
def test_rows(ops: opcall.Ops, m: int, dtype: str, out: str) -> None:
    """Weights whose rows fill no tile, logits in float32, every number of rows within what was prepared."""
    rng = np.random.default_rng(m)
    n, k = 264, 328
    x, w = narrow(normal(rng, m, k), dtype), narrow(normal(rng, n, k) * np.float32(k**-0.5), dtype)
    y = np.empty((m, n), np.float32 if out == "f32" else x.dtype)
    ops.run("linear", [x], [ops.weight(w)], [y])
    want = widen(x) @ widen(w).T
    assert abs(widen(y) - want).max() < (2e-4 if out == "f32" else 0.05)


@pytest.fixture(scope="module")
def pair(options, tmp_path_factory):
    made = {}

    def pair(variant: str, dtype: str):
        if (variant, dtype) not in made:
            made[variant, dtype] = make_pair(tmp_path_factory.mktemp(variant), variant, dtype, **options)
        return made[variant, dtype]

    return pair


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_logits(pair, variant: str, dtype: str) -> None:
    """Tied embeddings among them: the table and the head are one weight in plain rows."""
    both, tokens = pair(variant, dtype), tokens_of(1, 60)[0]
    want = run_chunks(both.cpu, tokens, [60])
    for name, chunking in CHUNKINGS.items():
        assert error(run_chunks(both.cuda, tokens, chunking), want) < TOLERANCE[dtype], name


@pytest.mark.parametrize("n", [1, 8, 9, 40])
def test_captured_decode_is_the_direct_launch(pair, n: int) -> None:
    bound, tokens = pair("qwen2", half()).cuda, tokens_of(n, 24, seed=n)
    results = []
    for captured in (True, False):
        seqs = tiny.Sequences(bound, n)
        for s in range(n):
            seqs.run({s: tokens[s][: 20 + s % 3]})
        seqs.extra_rows = () if captured else (0,)
        results.append(np.concatenate(seqs.run({s: tokens[s][-1:] for s in range(n)}))[:n])
    assert error(results[0], results[1]) < 1e-2


def test_without_the_library_the_extra_is_named(cuda: opcall.Ops) -> None:
    with pytest.raises(ValueError, match=r"no-such-file.*rvllm\[cublas\]"):
        opcall.Cuda(gemm_strategy="cublas", cublas_library="no-such-file.so")


# ---- measured choices -------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def rvllm(*args: str) -> str:
    command = [sys.executable, "-m", "rvllm", *args]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ, timeout=200)
    return result.stdout


@pytest.fixture
def hopper(cuda: opcall.Ops) -> bool:
    """Whether the choices are among the kernels of sm_90a; elsewhere they are of linear_tile_kernel."""
    description = Device("cuda").description
    return ", sm_90," in description and "kernels of" not in description


def test_what_tune_writes_a_fresh_process_reads(hopper: bool, cache: Path, tmp_path: Path) -> None:
    shape = CHANGES | {"hidden_size": 512, "intermediate_size": 2048, "dtype": LONG_NAMES[half()]}
    model = tiny.write_config(tmp_path, tiny.VARIANTS["llama"] | shape)
    args = (model, "--device", "cuda", "--max-num-batched-tokens", "512", "--max-num-seqs", "64")
    n_found = int(rvllm("tune", *args).splitlines()[-1].split()[0])
    (path,) = cache.glob("rvllm/linear-*.txt")
    assert path.read_text().endswith(f"end {n_found}\n")
    device = Device("cuda")
    assert path == kernel_table.table_path(device, "cutlass")
    # One more, of which a line is surely printed.
    weight = f"{half()} 320 512"
    entry = f"{weight} 1 64 {'linear_split 0 2 6' if hopper else 'linear_tile 0 2 0'} 1.00 2.00"
    device.use_choices(f"{entry}\nend 1\n")
    kernel_table.write_table(device, "cutlass", {weight: [entry]})
    text = rvllm("plan", *args)
    of_tiles = r"linear_tile x16 tokens, \d stages, K in 2, 6 CTAs"
    way = "linear_split x16 tokens, 6 stages, K in 2" if hopper else of_tiles
    assert re.search(rf"{way} \(measured\)", text)
    assert "(measured)" not in rvllm("plan", *args, "--batch-invariant")


def test_measured_choices_compute_the_same(hopper: bool, tmp_path: Path) -> None:
    """Every way in which a shape can run, forced by a table, gives what the built-in choice gives."""
    n, k = 1152, 1024
    rng = np.random.default_rng(0)
    x, w = narrow(normal(rng, 600, k), half()), narrow(normal(rng, n, k) * np.float32(k**-0.5), half())
    want = widen(x) @ widen(w).T
    many = ((65, 128), (193, 256), (513, 768))
    if hopper:
        ways = [(1, 64, f"linear_split 0 {s} {t}") for s in range(2, 9) for t in (12, 6, 2)]
        ways += [(1, 64, "linear_wide 0 1 12"), (1, 64, "linear_wide 0 1 3"), (193, 256, "linear_wide 0 1 4")]
        ways += [(*r, f"linear_large {t} 1 0") for r in many for t in (128, 192, 256)]
    else:
        ways = [(1, 64, f"linear_tile 0 {s} 0") for s in range(1, 9)]
        ways += [(*r, f"linear_tile {t} {s} 0") for r in many for t in (64, 128) for s in (1, 2)]
    for first, last, way in ways:
        ops = opcall.Cuda()
        ops.use_choices(f"{half()} {n} {k} {first} {last} {way} 1 1\nend 1\n")
        weight = ops.weight(w)
        for m in {first, (first + min(last, 600)) // 2, min(last, 600)}:
            y = np.empty((m, n), x.dtype)
            ops.run("linear", [x[:m]], [weight], [y])
            assert abs(widen(y) - want[:m]).max() < 0.05, (way, m)

"""The choice of CUDA linear kernels is a pure function: it is compiled and asked without a GPU."""

import ctypes
import shutil
import subprocess
from math import ceil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
F16, BF16, F32 = 1, 2, 0
NONE, SPLIT, WIDE, LARGE, TILE = range(5)
TILE_BYTES = 16384
SHAPES = [(4608, 3584), (3584, 3584), (37888, 3584), (3584, 18944), (152064, 3584), (896, 896), (9728, 896), (128, 64)]

ABI = """
#include "gemm/choose.h"
#include "gemm/layout.h"
using namespace rvllm;
extern "C" void choose(int arch, int n_sms, int m, int n, int k, int dtype, bool invariant, int* out) {
    const cuda::LinearDesc d = cuda::choose_linear({arch, n_sms}, {m, n, k, static_cast<DType>(dtype), invariant});
    const int v[] = {(int)d.kernel, d.tokens, d.split, d.sharing, d.n_ctas, d.n_stages, d.slice};
    for (int i = 0; i < 7; ++i) out[i] = v[i];
}
extern "C" long offset(int gate_up, long row, long piece, long n, long k) {
    return (long)cuda::piece_offset(cuda::stored_row(static_cast<RowOrder>(gate_up), row, n), piece, k);
}
extern "C" long bytes(long n, long k) { return (long)cuda::packed_bytes(n, k); }
"""


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("choose")
    (folder / "abi.cpp").write_text(ABI)
    so = folder / "choose.so"
    flags = ["-std=c++17", "-shared", "-fPIC", f"-I{ROOT}/cuda", f"-I{ROOT}/native"]
    subprocess.run([compiler, *flags, folder / "abi.cpp", ROOT / "cuda/gemm/choose.cpp", "-o", so], check=True)
    lib = ctypes.CDLL(str(so))
    for name in ("offset", "bytes"):
        getattr(lib, name).restype = ctypes.c_long
    lib.offset.argtypes = [ctypes.c_int] + [ctypes.c_long] * 4
    lib.bytes.argtypes = [ctypes.c_long] * 2
    return lib


def choose(lib, m, n, k, arch=90, dtype=BF16, invariant=False, n_sms=132):
    out = (ctypes.c_int * 7)()
    lib.choose(arch, n_sms, m, n, k, dtype, ctypes.c_bool(invariant), out)
    return dict(zip(("kernel", "tokens", "split", "sharing", "n_ctas", "n_stages", "slice"), out, strict=True))


@pytest.mark.parametrize(
    ("arch", "dtype", "k", "kernel"),
    [
        (60, F16, 64, NONE),
        (70, BF16, 64, NONE),
        (70, F16, 64, TILE),
        (75, BF16, 64, NONE),
        (75, F16, 64, TILE),
        (80, BF16, 64, TILE),
        (90, BF16, 64, WIDE),
        (90, BF16, 3584, SPLIT),
        (90, F32, 3584, NONE),
        (90, F16, 100, NONE),
        (120, BF16, 64, TILE),
    ],
)
def test_kernel(lib, arch, dtype, k, kernel):
    assert choose(lib, 1, 128, k, arch, dtype)["kernel"] == kernel


ROWS = [1, 2, 8, 9, 31, 64, 65, 100, 128, 129, 255, 256, 257, 512, 1000, 2048, 16384]


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("n_sms", [78, 114, 132])
def test_few_tokens_and_batch_invariance(lib, n, k, n_sms):
    order_of_sums = set()
    for m in ROWS:
        d = choose(lib, m, n, k, n_sms=n_sms, invariant=True)
        assert d["kernel"] in (SPLIT, WIDE)
        assert 3 <= d["n_stages"] <= 12
        assert d["n_stages"] * (TILE_BYTES + d["tokens"] * 128) <= 212 * 1024
        assert d["slice"] == 256
        assert d["tokens"] >= min(m, d["slice"])
        if m <= 64:
            assert choose(lib, m, n, k, n_sms=n_sms) == d
        order_of_sums.add((d["kernel"], d["split"], d["sharing"], d["n_ctas"]))
        blocks = ceil(n / 128)
        if d["kernel"] == SPLIT:
            assert 2 <= d["split"] <= 8
            assert blocks * d["split"] <= n_sms
            assert d["split"] <= ceil(k / 64)
        else:
            assert 1 <= d["n_ctas"] <= min(blocks, n_sms)
    assert len(order_of_sums) == 1, "a row's bits would depend on its batch"


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("n_sms", [78, 114, 132])
def test_many_tokens(lib, n, k, n_sms):
    for m in [m for m in ROWS if m > 64]:
        d = choose(lib, m, n, k, n_sms=n_sms)
        assert d["kernel"] == LARGE
        assert d["slice"] == m
        assert d["tokens"] % (8 * d["sharing"]) == 0
        assert d["n_stages"] * (TILE_BYTES + d["tokens"] * 128) + 33 * 1024 <= 227 * 1024
        # Whole rounds, then every part of the rest has a cluster, a chunk and a piece of 32 tokens of its own.
        n_clusters = d["n_ctas"] // d["sharing"]
        assert d["n_ctas"] == n_clusters * d["sharing"] <= n_sms
        tiles = ceil(ceil(n / 128) / d["sharing"]) * ceil(m / d["tokens"])
        assert n_clusters <= tiles * d["split"]
        assert tiles % n_clusters * d["split"] <= n_clusters
        assert 1 <= d["split"] <= min(4, ceil(k / 64), d["tokens"] // 32)
        if d["split"] > 1:
            assert tiles % n_clusters, "no tile is left to be split"


@pytest.mark.parametrize(("n", "k", "gate_up"), [(130, 72, 0), (256, 64, 1), (352, 200, 1), (128, 128, 0)])
def test_layout_is_a_bijection(lib, n, k, gate_up):
    pieces = {lib.offset(gate_up, row, piece, n, k) for row in range(n) for piece in range(ceil(k / 8))}
    assert len(pieces) == n * ceil(k / 8)
    assert all(p % 16 == 0 and 0 <= p < lib.bytes(n, k) for p in pieces)
    assert lib.bytes(n, k) == ceil(n / 128) * ceil(k / 64) * TILE_BYTES


def test_gate_and_up_rows_are_neighbours(lib):
    n, k = 256, 64
    for i in range(n // 2):
        gate, up = lib.offset(1, i, 0, n, k), lib.offset(1, i + n // 2, 0, n, k)
        assert up - gate == 8 * 128  # eight rows of a tile: the two halves of an accumulator fragment

"""The choice of CUDA linear kernels is a pure function: it is compiled and asked without a GPU."""

import ctypes
import shutil
import subprocess
from math import ceil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
F16, BF16, F32 = 1, 2, 0
NONE, SPLIT, WIDE, LARGE, TILE, CUBLAS = range(6)
STRATEGIES = CUTLASS, CUBLAS_ONLY, HYBRID = range(3)
TILE_BYTES = 16384
SHAPES = [(4608, 3584), (3584, 3584), (37888, 3584), (3584, 18944), (152064, 3584), (896, 896), (9728, 896), (128, 64)]

ABI = """
#include "gemm/choose.h"
#include "gemm/layout.h"
#include "gemm/table.h"
using namespace rvllm;
static cuda::LinearTable table;
static std::string text;
// As cuda/gpu.cpp has it.
static cuda::Device device_of(int arch, int n_sms) {
    const int smem_kb = arch == 75 ? 64 : arch == 70 ? 96 : arch == 80 ? 163 : arch == 90 || arch == 100 ? 227 : 99;
    return {arch, n_sms, smem_kb * 1024};
}
extern "C" void choose(int arch, int n_sms, int m, int n, int k, int dtype, bool invariant, int strategy, int* out) {
    const cuda::LinearShape shape{m, n, k, static_cast<DType>(dtype), invariant, static_cast<GemmStrategy>(strategy)};
    const cuda::LinearDesc d = cuda::choose_linear(device_of(arch, n_sms), shape, &table);
    const int v[] = {(int)d.kernel, d.tokens, d.split, d.sharing, d.n_ctas, d.n_stages, d.slice, d.measured};
    for (int i = 0; i < 8; ++i) out[i] = v[i];
}
extern "C" const char* parse(const char* lines, int arch, int strategy) {
    text.clear();
    table.parse(lines, device_of(arch, 132), static_cast<GemmStrategy>(strategy), &text);
    return text.c_str();
}
extern "C" const char* ways(int arch, int m, int n, int k, int strategy) {
    const cuda::LinearShape shape{m, n, k, DType::bf16, false, static_cast<GemmStrategy>(strategy)};
    text.clear();
    for (const cuda::RowRange& rows : cuda::kRowRanges)
        for (const cuda::LinearWay& way : cuda::linear_ways(device_of(arch, 132), shape, rows))
            text += cuda::entry_line({DType::bf16, n, k, rows, way, 1, 2});
    return text.c_str();
}
extern "C" const char* describe(int arch, int m, int n, int k) {
    char line[128];
    cuda::describe_linear(cuda::choose_linear(device_of(arch, 132), {m, n, k, DType::bf16}, &table), line, sizeof line);
    return (text = line).c_str();
}
extern "C" long offset(int gate_up, long row, long piece, long n, long k) {
    const int64_t stored = cuda::stored_row(static_cast<RowOrder>(gate_up), row, n);
    return (long)cuda::piece_offset(cuda::WeightLayout::tiles, stored, piece, k);
}
extern "C" long bytes(long n, long k) { return (long)cuda::packed_bytes(cuda::WeightLayout::tiles, n, k); }
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
    subprocess.run(
        [compiler, *flags, folder / "abi.cpp", ROOT / "cuda/gemm/choose.cpp", ROOT / "cuda/gemm/table.cpp", "-o", so],
        check=True,
    )
    lib = ctypes.CDLL(str(so))
    for name in ("offset", "bytes"):
        getattr(lib, name).restype = ctypes.c_long
    lib.offset.argtypes = [ctypes.c_int] + [ctypes.c_long] * 4
    lib.bytes.argtypes = [ctypes.c_long] * 2
    for name in ("parse", "ways", "describe"):
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


def parse(lib, text, strategy=CUTLASS, arch=90):
    """Return what is wrong with the text, or ""; if nothing is, choices follow it from now on."""
    return lib.parse(text.encode(), arch, strategy).decode()


@pytest.fixture
def table(lib):
    yield lambda *lines, **kwargs: parse(lib, "\n".join([*lines, f"end {len(lines)}\n"]), **kwargs)
    assert parse(lib, "end 0\n") == ""


def choose(lib, m, n, k, arch=90, dtype=BF16, invariant=False, n_sms=132, strategy=CUTLASS):
    out = (ctypes.c_int * 8)()
    lib.choose(arch, n_sms, m, n, k, dtype, ctypes.c_bool(invariant), strategy, out)
    names = ("kernel", "tokens", "split", "sharing", "n_ctas", "n_stages", "slice", "measured")
    return dict(zip(names, out, strict=True))


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


ARCHS = [(70, 80, 96), (75, 40, 64), (80, 108, 163), (86, 84, 99), (89, 128, 99), (100, 148, 227), (120, 170, 99)]


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize(("arch", "n_sms", "smem_kb"), ARCHS)
def test_tiles_of_other_architectures(lib, n, k, arch, n_sms, smem_kb):
    order_of_sums = set()
    blocks, chunks = ceil(n / 128), ceil(k / 64)
    for m in ROWS:
        for invariant in (False, True):
            d = choose(lib, m, n, k, arch, F16, invariant, n_sms)
            assert d["kernel"] == TILE
            assert d["n_stages"] >= 2 and d["n_stages"] * (TILE_BYTES + d["tokens"] * 128) <= smem_kb * 1024
            assert d["n_stages"] >= 3 or arch < 80
            if m <= 64 or invariant:
                assert d["tokens"] >= min(m, d["slice"])
                order_of_sums.add((d["split"], d["n_ctas"]))
            else:
                assert d["slice"] == m
            # Every CTA has something to do, and no tile more parts than it has chunks.
            tiles = blocks * ceil(min(m, d["slice"]) / d["tokens"])
            assert 1 <= d["n_ctas"] <= min(n_sms, tiles * chunks if d["split"] > 1 else tiles)
            assert 1 <= d["split"] <= chunks + 1
    assert len(order_of_sums) == 1, "a row's bits would depend on its batch"


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


@pytest.mark.parametrize(("n", "split"), [(1024, 8), (2048, 7), (3072, 4), (3584, 4), (4096, 3), (4608, 3), (8192, 2)])
def test_clusters_are_all_there_at_once(lib, n, split):
    """On an H200, 32 clusters of four take two rounds: 13.1 us where 32 of three take 9.7."""
    assert choose(lib, 1, n, 4096)["split"] == split


# ---- strategies and measured choices ----------------------------------------------------------------


@pytest.mark.parametrize("arch", [80, 90, 120])
def test_strategies(lib, arch):
    for m in ROWS:
        assert choose(lib, m, 37888, 3584, arch)["kernel"] not in (NONE, CUBLAS)
        assert choose(lib, m, 37888, 3584, arch, strategy=CUBLAS_ONLY)["kernel"] == CUBLAS
        assert choose(lib, m, 37888, 3584, arch, strategy=HYBRID)["kernel"] == (
            WIDE if arch == 90 and m <= 64 else CUBLAS
        )


FEW = "bf16 4608 3584 1 64 linear_split 0 4 6 8.10 8.90"
MANY = "bf16 4608 3584 193 256 linear_large 128 1 0 16.00 17.00"


def test_a_measured_choice_is_used_in_its_rows_only(lib, table):
    built_in = {m: choose(lib, m, 4608, 3584) for m in ROWS}
    assert table(MANY, FEW) == ""
    for m in ROWS:
        d = choose(lib, m, 4608, 3584)
        if m <= 64:
            assert (d["kernel"], d["split"], d["measured"]) == (SPLIT, 4, 1)
            assert d["n_stages"] == 6 and d["tokens"] >= m
        elif 193 <= m <= 256:
            assert (d["kernel"], d["tokens"], d["measured"]) == (LARGE, 128, 1)
            assert d["n_ctas"] <= 132
        else:
            assert d == built_in[m]
        assert choose(lib, m, 4608, 3584, dtype=F16)["measured"] == 0
        assert choose(lib, m, 3584, 3584)["measured"] == 0
        assert choose(lib, m, 4608, 3584, invariant=True)["measured"] == 0
    assert lib.describe(90, 8, 4608, 3584).endswith(b"K in 4 (measured)")
    assert lib.describe(90, 128, 4608, 3584).endswith(b"CTAs")


def test_a_rows_bits_do_not_depend_on_its_batch_whatever_was_measured(lib, table):
    """Rows that must agree are one range: no table can give them different orders of summation."""
    assert table(FEW) == ""
    sums = {tuple(choose(lib, m, 4608, 3584)[f] for f in ("kernel", "split", "n_ctas")) for m in range(1, 65)}
    assert len(sums) == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (FEW, "its end is missing"),
        ("", "its end is missing"),
        (f"{FEW}\nend 2\n", "entries are missing"),
        (f"{FEW}\n{MANY[:35]}\nend 2\n", "line 2 (bf16 4608 3584 193 256 linear_large) is not an entry"),
        (f"end 0\n{FEW}\n", "comes after the end"),
        (f"{FEW}\n{FEW}\nend 2\n", "an entry is there twice"),
        ("f32" + FEW[4:] + "\nend 1\n", "has an unknown type"),
        (FEW.replace("split", "other") + "\nend 1\n", "has an unknown kernel"),
        (FEW.replace("1 64", "1 32") + "\nend 1\n", "has rows that are no range of this version"),
        (FEW.replace(" 4 6 ", " 9 6 ") + "\nend 1\n", "is not possible on this device"),
        (FEW.replace(" 4 6 ", " 4 1 ") + "\nend 1\n", "is not possible on this device"),
        (FEW.replace(" 4 6 ", " 99999 6 ") + "\nend 1\n", "has a number out of range"),
        (MANY.replace("128", "129") + "\nend 1\n", "is not possible on this device"),
        (MANY.replace("193 256", "1 64") + "\nend 1\n", "is not possible on this device"),
        (FEW.replace("3584", "3585") + "\nend 1\n", "is not possible on this device"),
        ("\x01\x02\n", "is not an entry"),
    ],
)
def test_a_text_that_is_not_right_changes_nothing(lib, table, text, wrong):
    assert table(MANY) == ""
    assert wrong in parse(lib, text)
    assert choose(lib, 256, 4608, 3584)["measured"] == 1
    assert choose(lib, 1, 4608, 3584)["measured"] == 0


def test_a_table_for_another_strategy_or_device_is_refused(lib):
    cublas = "bf16 4608 3584 193 256 cublasLt 0 1 0 1.00 2.00\nend 1\n"
    assert parse(lib, cublas, HYBRID) == parse(lib, "end 0\n") == ""
    assert "is not possible" in parse(lib, cublas, CUTLASS)
    assert "is not possible" in parse(lib, f"{MANY}\nend 1\n", HYBRID)  # that kernel reads tiles
    assert "is not possible" in parse(lib, f"{FEW}\nend 1\n", CUBLAS_ONLY)
    assert "is not possible" in parse(lib, f"{FEW}\nend 1\n", arch=80)
    assert "is not possible" in parse(lib, cublas.replace("193 256", "1 64"), HYBRID)


@pytest.mark.parametrize("arch", [80, 86, 90, 120])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_every_way_that_is_measured_can_be_an_entry(lib, n, k, strategy, arch):
    lines = lib.ways(arch, 16384, n, k, strategy).decode().splitlines()
    assert bool(lines) == (strategy == CUTLASS or (strategy == HYBRID and arch == 90))
    for line in lines:
        assert parse(lib, f"{line}\nend 1\n", strategy, arch) == ""
    assert parse(lib, "end 0\n") == ""

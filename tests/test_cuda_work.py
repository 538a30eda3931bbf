"""How attention's work is cut for CUDA, and by which kernels, is decided on the host: asked without a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
MAX_SPLITS, GRANULE = 64, 16
GROUP, TILE_ROWS = 7, 128

ABI = """
#include "attention/attention.h"
#include "attention/choose.h"
using namespace rvllm;
extern "C" int keys(int kv_len) { return cuda::split_keys(kv_len); }
extern "C" int most(int max_seqs, int entries) {
    StepLimits limits;
    limits.max_seqs = max_seqs;
    limits.max_table_entries = entries;
    return cuda::max_splits(limits, 16);
}
extern "C" void cut(int n, int* query_start, int* kv_len, int* starts, int* counts, cuda::DecodeItem* d,
                    cuda::PrefillItem* p) {
    StepInput step;
    step.n_seqs = n, step.query_start = query_start, step.kv_len = kv_len;
    cuda::AttentionWork work;
    work.group_size = 7, work.tile_rows = 128;
    cuda::cut_attention(step, starts, &work, d, p);
    counts[0] = work.n_decode, counts[1] = work.n_prefill;
}
extern "C" int choose(bool sm90, int arch, int smem_bytes, int dtype, int head_dim, const char** why) {
    const cuda::AttentionDesc d =
        cuda::choose_attention({sm90, arch, smem_bytes}, static_cast<DType>(dtype), head_dim);
    *why = d.refusal;
    return static_cast<int>(d.kernel);
}
extern "C" int wgmma_bytes(int head_dim) { return cuda::wgmma_smem_bytes(head_dim); }
"""


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("work")
    (folder / "abi.cpp").write_text(ABI)
    so = folder / "work.so"
    flags = ["-std=c++17", "-shared", "-fPIC", f"-I{ROOT}/cuda", f"-I{ROOT}/native"]
    sources = [folder / "abi.cpp", ROOT / "cuda/attention/work.cpp", ROOT / "cuda/attention/choose.cpp"]
    subprocess.run([compiler, *flags, *sources, "-o", so], check=True)
    return ctypes.CDLL(str(so))


def cut(lib, new: list[int], kv_len: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return (decode items [n, 8], prefill items [n, 8]) as integers."""
    starts = np.cumsum([0, *(-(-k // 16) for k in kv_len)]).astype(np.int32)
    arrays = [np.cumsum([0, *new]).astype(np.int32), np.array(kv_len, np.int32), starts, np.zeros(2, np.int32)]
    decode, prefill = np.zeros((4096, 8), np.int32), np.zeros((4096, 8), np.int32)
    lib.cut(len(new), *(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, decode, prefill)))
    return decode[: arrays[3][0]], prefill[: arrays[3][1]]


@pytest.mark.parametrize("kv_len", [1, 15, 16, 767, 768, 769, 1024, 5000, 32767, 32768, 32769, 131072, 1 << 20])
def test_splits_cover_every_key_once(lib, kv_len: int) -> None:
    decode, prefill = cut(lib, [1], [kv_len])
    assert len(prefill) == 0 and 1 <= len(decode) <= MAX_SPLITS
    assert decode[0, 2] == 0 and decode[-1, 3] == kv_len
    assert (decode[1:, 2] == decode[:-1, 3]).all() and (decode[:, 3] > decode[:, 2]).all()
    assert (decode[:, 2] % GRANULE == 0).all()
    assert (decode[:, 4] == np.arange(len(decode))).all() and (decode[:, 5] == len(decode)).all()
    assert len(decode) <= lib.most(1, -(-kv_len // 16))


def test_a_sequence_is_cut_alike_in_any_batch(lib) -> None:
    lengths = [5000, 3, 70000, 769]
    together, _ = cut(lib, [1] * 4, lengths)
    for s, n in enumerate(lengths):
        alone, _ = cut(lib, [1], [n])
        assert (together[together[:, 0] == s][:, 2:6] == alone[:, 2:6]).all()
    assert (together[:, 6] + together[:, 4] == np.arange(len(together))).all(), "partial results overlap"
    assert len(together) <= lib.most(4, sum(-(-n // 16) for n in lengths))


def test_tiles_cover_every_query_row_once_and_long_ones_come_first(lib) -> None:
    new, kv_len = [200, 1, 2, 64, 0], [300, 50, 2, 4000, 7]
    decode, prefill = cut(lib, new, kv_len)
    assert decode[:, 0].tolist() == [1]
    assert (np.diff(prefill[:, 5]) <= 0).all()
    for s in (0, 2, 3):
        tiles = prefill[prefill[:, 0] == s]
        assert sorted(tiles[:, 2]) == list(range(0, new[s] * GROUP, TILE_ROWS))
        for _, token, first_row, n_rows, first_position, end_key, _, _ in tiles.tolist():
            assert (token, n_rows, first_position) == (sum(new[:s]), new[s] * GROUP, kv_len[s] - new[s])
            last_row = min(n_rows, first_row + TILE_ROWS) - 1
            assert end_key == first_position + last_row // GROUP + 1


# ---- which kernels ----------------------------------------------------------------------------------

NONE, MMA, SM90 = range(3)
F16, BF16, F32 = 1, 2, 0
HEAD_DIMS = (64, 80, 96, 128, 256)
SMEM_KB = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # of a block


def choose(lib, arch: int, dtype: int, head_dim: int, *, sm90: bool = False, smem_kb: int = 0) -> tuple[int, str]:
    why = ctypes.c_char_p()
    smem_bytes = (smem_kb or SMEM_KB[arch]) * 1024
    kernel = lib.choose(ctypes.c_bool(sm90), arch, smem_bytes, dtype, head_dim, ctypes.byref(why))
    return kernel, (why.value or b"").decode()


@pytest.mark.parametrize("arch", SMEM_KB)
def test_every_architecture_has_every_head_size_or_says_why_not(lib, arch: int) -> None:
    for dtype in (F16, BF16):
        for head_dim in HEAD_DIMS:
            kernel, why = choose(lib, arch, dtype, head_dim)
            if arch < 80 and dtype == BF16:
                assert kernel == NONE and "use f16" in why
            elif arch < 80 and head_dim == 256:
                assert kernel == NONE and "shared memory" in why
            else:
                assert kernel == MMA and why == "", head_dim


def test_what_no_gpu_has_is_refused(lib) -> None:
    assert "head sizes 64, 80" in choose(lib, 80, F16, 72)[1]
    assert "f16 or bf16" in choose(lib, 80, F32, 64)[1]
    assert "7.0" in choose(lib, 61, F16, 64, smem_kb=96)[1]


def test_kernels_of_sm80_run_where_there_is_less_shared_memory(lib) -> None:
    """A build for sm_80 alone also runs on sm_86, with the tiles of sm_80; the driver compiles PTX of others."""
    assert all(choose(lib, 80, BF16, head_dim, smem_kb=99)[0] == MMA for head_dim in HEAD_DIMS)
    assert "shared memory" in choose(lib, 90, BF16, 256, smem_kb=99)[1]


def test_kernels_of_sm90_come_first_and_fit(lib) -> None:
    for head_dim in HEAD_DIMS:
        assert choose(lib, 90, BF16, head_dim, sm90=True)[0] == SM90
        assert lib.wgmma_bytes(head_dim) <= SMEM_KB[90] * 1024

"""How attention's work is cut for CUDA, and by which kernels, is decided on the host: asked without a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
MAX_SPLITS, GRANULE, ITEM_ROWS = 64, 16, 32
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
    work.group_size = 7, work.tile_rows = 128, work.n_kv_heads = 4, work.n_ctas = 264;
    cuda::cut_attention(step, starts, &work, d, p);
    counts[0] = work.n_decode, counts[1] = work.n_prefill, counts[2] = 1 << work.log_warps;
}
extern "C" void rows(int n, int block_size, const cuda::DecodeItem* d, const int* blocks, int* rows) {
    cuda::AttentionWork work;
    work.n_decode = n, work.n_kv_heads = 4, work.block_size = block_size;
    cuda::find_decode_rows(work, d, blocks, rows);
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


def cut(lib, new: list[int], kv_len: list[int]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return decode items [n, 8], prefill items [n, 8], and the warps of a team."""
    starts = np.cumsum([0, *(-(-k // 16) for k in kv_len)]).astype(np.int32)
    arrays = [np.cumsum([0, *new]).astype(np.int32), np.array(kv_len, np.int32), starts, np.zeros(3, np.int32)]
    decode, prefill = np.zeros((4096, 8), np.int32), np.zeros((4096, 8), np.int32)
    lib.cut(len(new), *(ctypes.c_void_p(a.ctypes.data) for a in (*arrays, decode, prefill)))
    n_decode, n_prefill, n_warps = arrays[3].tolist()
    return decode[:n_decode], prefill[:n_prefill], n_warps


@pytest.mark.parametrize("kv_len", [1, 15, 16, 767, 768, 769, 1024, 5000, 32767, 32768, 32769, 131072, 1 << 20])
def test_splits_cover_every_key_once(lib, kv_len: int) -> None:
    decode, prefill, _ = cut(lib, [1], [kv_len])
    assert len(prefill) == 0 and 1 <= len(decode) <= MAX_SPLITS
    assert decode[0, 2] == 0 and decode[-1, 3] == kv_len
    assert (decode[1:, 2] == decode[:-1, 3]).all() and (decode[:, 3] > decode[:, 2]).all()
    assert (decode[:, 2] % GRANULE == 0).all()
    assert (decode[:, 4] == np.arange(len(decode))).all() and (decode[:, 5] == len(decode)).all()
    assert len(decode) <= lib.most(1, -(-kv_len // 16))


def test_a_sequence_is_cut_alike_in_any_batch(lib) -> None:
    lengths = [5000, 3, 70000, 769]
    together, _, _ = cut(lib, [1] * 4, lengths)
    for s, n in enumerate(lengths):
        alone, _, _ = cut(lib, [1], [n])
        assert (together[together[:, 0] == s][:, 2:6] == alone[:, 2:6]).all()
    assert sorted(together[:, 6] + together[:, 4]) == list(range(len(together))), "partial results overlap"
    assert (np.diff(together[:, 3] - together[:, 2]) <= 0).all(), "long ones come first"
    assert len(together) <= lib.most(4, sum(-(-n // 16) for n in lengths))


@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_rows_of_the_cache_are_those_of_the_block_table(lib, block_size: int) -> None:
    lengths = [1, 16, 17, 500, 600, 5000]
    starts = np.cumsum([0, *(-(-n // block_size) for n in lengths)]).astype(np.int32)
    blocks = np.random.default_rng(0).permutation(starts[-1]).astype(np.int32)
    decode, _, _ = cut(lib, [1] * len(lengths), lengths)
    decode[:, 7] = starts[decode[:, 0]]
    rows = np.full((len(decode), ITEM_ROWS), -1, np.int32)
    pointers = (ctypes.c_void_p(a.ctypes.data) for a in (decode, blocks, rows))
    lib.rows(len(decode), block_size, *pointers)
    for (_, _, first, end, *_, start), got in zip(decode.tolist(), rows, strict=True):
        keys = np.arange(first, end, GRANULE)[:ITEM_ROWS]
        want = blocks[start + keys // block_size] * 4 * block_size + keys % block_size
        assert (got[: len(keys)] == want).all() and (got[len(keys) :] == -1).all()


def test_tiles_cover_every_query_row_once_and_long_ones_come_first(lib) -> None:
    new, kv_len = [200, 1, 2, 64, 0], [300, 50, 2, 4000, 7]
    decode, prefill, _ = cut(lib, new, kv_len)
    assert decode[:, 0].tolist() == [1]
    assert (np.diff(prefill[:, 5]) <= 0).all()
    for s in (0, 2, 3):
        tiles = prefill[prefill[:, 0] == s]
        assert sorted(tiles[:, 2]) == list(range(0, new[s] * GROUP, TILE_ROWS))
        for _, token, first_row, n_rows, first_position, end_key, _, _ in tiles.tolist():
            assert (token, n_rows, first_position) == (sum(new[:s]), new[s] * GROUP, kv_len[s] - new[s])
            last_row = min(n_rows, first_row + TILE_ROWS) - 1
            assert end_key == first_position + last_row // GROUP + 1


@pytest.mark.parametrize("kv_len", [1, 17, 100, 1024, 70000])
@pytest.mark.parametrize("n_seqs", [1, 16, 63, 64])
def test_few_sequences_get_all_warps_of_a_cta_whatever_their_lengths(lib, n_seqs: int, kv_len: int) -> None:
    assert cut(lib, [1] * n_seqs, [kv_len] * n_seqs)[2] == 4
    assert cut(lib, [1] * n_seqs, [kv_len] + [1] * (n_seqs - 1))[2] == 4


def test_many_short_sequences_get_teams_that_fill_the_machine_once(lib) -> None:
    """264 CTAs of 4 warps, 4 pairs of a sequence and a head of keys."""
    assert cut(lib, [1] * 66, [128] * 66)[2] == 4
    assert cut(lib, [1] * 128, [128] * 128)[2] == 2
    assert cut(lib, [1] * 256, [128] * 256)[2] == 1
    assert cut(lib, [1] * 256, [1024] * 256)[2] == 1
    assert cut(lib, [1] * 100, [1024] + [32] * 99)[2] == 4, "one warp alone at the long one"


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

"""How the sampling primitives are called: arrays, parameters per row, errors, threads, forks, types."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rvllm import sampling

BF16 = {"dtype": "bfloat16"}


def make_batch(rows=6, vocab=2000, seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * 3).astype(np.float32)


def to_bfloat16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(x):
    return (x.astype(np.uint32) << 16).view(np.float32)


def in_place(name, *args, **kwargs):
    def call(logits, **more):
        getattr(sampling, name)(logits, *args, **kwargs, **more)
        return logits

    return call


IN_PLACE = {
    "penalties": in_place("apply_penalties", repetition_penalty=1.3, counts=np.arange(2000, dtype=np.int32) % 3),
    "temperature": in_place("apply_temperature", 0.7),
    "top_k": in_place("apply_top_k", 40),
    "top_p": in_place("apply_top_p", 0.8),
    "min_p": in_place("apply_min_p", 0.02),
    "bitmask": in_place("apply_bitmask", np.arange(63, dtype=np.int32) * 77777),
}
PURE = {
    "softmax": sampling.softmax,
    "log_softmax": sampling.log_softmax,
    "argmax": sampling.argmax,
    "top_logprobs": lambda x, **k: np.concatenate(sampling.top_logprobs(x, 5, **k), axis=-1),
    "sample_batch": lambda x, **k: sampling.sample_batch(x, top_p=0.9, seed=np.arange(len(x)), **k),
    "multinomial": lambda x, **k: sampling.multinomial(x, seed=np.arange(len(x)), **k),
}
ALL = IN_PLACE | PURE


def argument(name, batch):
    return np.abs(batch) if name == "multinomial" else batch.copy()


@pytest.mark.parametrize("name", ALL)
def test_rows_of_any_stride_and_any_number_of_threads(name):
    batch = argument(name, make_batch())
    expected = (
        np.stack([ALL[name](row[None].copy())[0] for row in batch])
        if name in IN_PLACE or "soft" in name
        else (ALL[name](batch.copy()))
    )
    wide = np.zeros((6, 2600), np.float32)
    wide[:, 300:2300] = batch
    np.testing.assert_array_equal(ALL[name](wide[:, 300:2300]), expected)
    np.testing.assert_array_equal(ALL[name](batch[::-1].copy()[::-1]), expected)
    for threads in (1, 2, 3, None):
        np.testing.assert_array_equal(ALL[name](batch.copy(), num_threads=threads), expected)


@pytest.mark.parametrize("name", ALL)
def test_16_bit_rows_give_what_float32_rows_give(name):
    batch = argument(name, make_batch())
    half = batch.astype(np.float16)
    got, wide = ALL[name](half.copy()), ALL[name](half.astype(np.float32))
    np.testing.assert_array_equal(got, wide.astype(np.float16) if name in IN_PLACE else wide)
    brain = to_bfloat16(batch)
    got, wide = ALL[name](brain.copy(), **BF16), ALL[name](from_bfloat16(brain))
    np.testing.assert_array_equal(got, to_bfloat16(wide) if name in IN_PLACE else wide)


def test_softmax_into_its_own_input_and_other_outputs():
    batch = make_batch()
    expected = sampling.softmax(batch)
    own = batch.copy()
    assert sampling.softmax(own, out=own) is own
    np.testing.assert_array_equal(own, expected)
    half = batch.astype(np.float16)
    sampling.softmax(half, out=half)
    np.testing.assert_array_equal(half, sampling.softmax(batch.astype(np.float16)).astype(np.float16))
    mixed = np.empty_like(batch)
    sampling.log_softmax(batch.astype(np.float16), out=mixed)
    np.testing.assert_array_equal(mixed, sampling.log_softmax(batch.astype(np.float16)))


def test_parameters_per_row():
    batch = make_batch()
    ks = np.array([1, 2, 3, 0, -1, 9000])
    counts = sampling.apply_top_k(batch.copy(), ks)
    assert counts.tolist() == [1, 2, 3, 2000, 2000, 2000]
    ps = [0.1, 0.5, 0.9, 0.99, 1.0, 0.3]
    assert sampling.apply_top_p(batch.copy(), ps).tolist() == [
        sampling.apply_top_p(row.copy(), p) for row, p in zip(batch, ps, strict=True)
    ]
    params = {
        "temperature": [0.0, 0.5, 1.0, 1.5, 0.9, 2.0], "top_k": ks, "top_p": ps,
        "min_p": [0, 0.1, 0, 0.01, 0, 0], "repetition_penalty": [1, 1.1, 1.2, 1, 1, 2.0],
        "seed": [5, 2**64 - 1, 7, 8, 9, 10], "choice": [0, 1, 2, 0, 0, 0], "token_index": [9, 8, 7, 6, 5, 4],
    }  # fmt: skip
    ids = [[1, 2, 3], [], [4] * 3000, np.array([5, -1, 5]), np.arange(100, dtype=np.int32), (6,)]
    got = sampling.sample_batch(batch, **params, token_ids=ids, prompt_ids=ids[::-1])
    alone = [
        sampling.sample_batch(batch[i], **{k: v[i] for k, v in params.items()}, token_ids=ids[i], prompt_ids=ids[5 - i])
        for i in range(6)
    ]
    assert got.tolist() == alone


def test_repeated_ids_beyond_the_vocabulary_count_once():
    logits = make_batch(1, 50)[0]
    ids = list(range(20)) * 9 + [3]
    long, short = logits.copy(), logits.copy()
    counts = np.bincount(ids, minlength=50).astype(np.int32)
    sampling.apply_penalties(long, ids, [49] * 30, repetition_penalty=1.5, frequency_penalty=0.1)
    sampling.apply_penalties(short, prompt_ids=[*range(20), 49], counts=counts, repetition_penalty=1.5,
                             frequency_penalty=0.1)  # fmt: skip
    np.testing.assert_array_equal(long, short)


def test_seeds():
    batch = np.repeat(make_batch(1, 500), 40, axis=0)
    one = sampling.sample_batch(batch, seed=3)
    assert len(set(one.tolist())) > 5  # rows are the choices of one seed
    np.testing.assert_array_equal(one, sampling.sample_batch(batch, seed=[3] * 40, choice=np.arange(40)))
    assert len(set(sampling.sample_batch(batch, seed=[3] * 40).tolist())) == 1
    assert len({sampling.sample_batch(batch[0]) for _ in range(40)}) > 5  # fresh entropy
    assert sampling.sample_batch(batch[0], seed=-1) == sampling.sample_batch(batch[0], seed=2**64 - 1)


X = make_batch(3, 100)
ERRORS = [
    (lambda: sampling.argmax([1.0, 2.0]), "logits: expected an array, got list"),
    (lambda: sampling.argmax(X.astype(np.float64)), "logits: .*'d'"),
    (lambda: sampling.argmax(X.view(np.uint16)), "logits: .*dtype='bfloat16'"),
    (lambda: sampling.argmax(X, dtype="bfloat16"), "logits: .*dtype='bfloat16'"),
    (lambda: sampling.argmax(X[None]), "logits: expected 1 or 2 dimensions, got 3"),
    (lambda: sampling.argmax(X[:, ::2]), "logits: values of a row must be adjacent"),
    (lambda: sampling.argmax(X[:, :0]), "logits: a row must have 1 to"),
    (lambda: sampling.argmax(X, num_threads=0), "num_threads: 0 is not"),
    (lambda: sampling.argmax(X, num_threads="two"), "num_threads: 'two' is not"),
    (lambda: sampling.apply_top_k(np.broadcast_to(X, X.shape), 3), "logits: expected a writable array"),
    (lambda: sampling.apply_top_k(X, -2), "top_k: -2"),
    (lambda: sampling.apply_top_k(X, 1.5), "top_k: expected an integer"),
    (lambda: sampling.apply_top_k(X, [1, 2]), "top_k: .*3 rows.*(2,)"),
    (lambda: sampling.apply_top_p(X, 0.0), "top_p: 0 is not in"),
    (lambda: sampling.apply_top_p(X, [0.1, 1.1, 0.5]), "top_p: 1.1 in row 1"),
    (lambda: sampling.apply_top_p(X, float("nan")), "top_p: nan"),
    (lambda: sampling.apply_min_p(X, -0.1), "min_p: -0.1"),
    (lambda: sampling.apply_min_p(X, "a"), "min_p: "),
    (lambda: sampling.apply_temperature(X, 0.0), "temperature: 0 is not in"),
    (lambda: sampling.sample_batch(X, temperature=-1.0), "temperature: -1 is not in"),
    (lambda: sampling.sample_batch(X, seed=1.5), "seed: expected an integer"),
    (lambda: sampling.apply_penalties(X[0], [100]), "token_ids: token id 100 is not in the vocabulary of 100"),
    (lambda: sampling.apply_penalties(X[0], [-2]), "token_ids: token id -2"),
    (lambda: sampling.apply_penalties(X[0], prompt_ids=[0.5]), "prompt_ids: "),
    (lambda: sampling.apply_penalties(X[0], prompt_ids=np.zeros(3)), "prompt_ids: .*int32 or int64"),
    (lambda: sampling.apply_penalties(X, [[1], [2]]), "token_ids: expected ids for 3 rows, got 2"),
    (lambda: sampling.apply_penalties(X, 7), "token_ids: expected a sequence of ids per row"),
    (lambda: sampling.apply_penalties(X, counts=np.zeros(99, np.int32)), "counts: expected shape"),
    (lambda: sampling.apply_penalties(X, counts=np.zeros(100)), "counts: expected int32"),
    (lambda: sampling.apply_penalties(X, repetition_penalty=0.0), "repetition_penalty: 0"),
    (lambda: sampling.apply_bitmask(X, np.zeros(3, np.int32)), "bitmask: expected shape"),
    (lambda: sampling.apply_bitmask(X, None), "bitmask: "),
    (lambda: sampling.top_logprobs(X, 101), "n: 101"),
    (lambda: sampling.softmax(X, out=np.empty((3, 99), np.float32)), "out: must have the shape"),
    (lambda: sampling.multinomial(X, seed=1), "probs: row 0"),
    (lambda: sampling.multinomial(np.zeros((2, 5), np.float32)), "probs: row 0"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[m for _, m in ERRORS])
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_rows():
    empty = np.empty((0, 100), np.float32)
    assert sampling.argmax(empty).shape == (0,)
    assert sampling.softmax(empty).shape == (0, 100)
    assert sampling.sample_batch(empty, temperature=[]).shape == (0,)


PENALTIES = {"repetition_penalty": 1.3, "frequency_penalty": 0.1}


def digest():
    """Every result on a mix of rows, as one hash."""
    total = hashlib.sha256()
    for vocab in (40, 2000, 33_000):
        batch = make_batch(8, vocab, vocab)
        batch[0] = np.round(batch[0])
        batch[1, ::2] = -np.inf
        batch[2] *= 1e5
        probs = sampling.softmax(batch)
        outputs = [probs, sampling.log_softmax(batch), sampling.argmax(batch), *sampling.top_logprobs(batch, 9)]
        for filters in ({}, {"top_p": 0.9}, {"top_k": 20, "top_p": 0.7}, {"min_p": 0.01}, {"top_k": vocab // 2}):
            seeds = np.arange(8) + vocab
            outputs.append(sampling.sample_batch(batch, temperature=0.9, seed=seeds, **filters))
        outputs.append(sampling.multinomial(probs, seed=9))
        changes = (
            in_place("apply_top_p", 0.95),
            in_place("apply_top_k", 100),
            in_place("apply_min_p", 0.001),
            in_place("apply_temperature", 0.3),
            in_place("apply_penalties", counts=np.arange(vocab, dtype=np.int32) % 3, **PENALTIES),
        )
        outputs.extend(change(batch.copy()) for change in changes)
        for array in outputs:
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_bits_do_not_depend_on_the_instruction_set(isa):
    env = os.environ | {"RVLLM_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import test_sampling_calls as t; print(t.digest())"
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == digest()


@pytest.mark.parametrize("name", ALL)
def test_calls_of_several_python_threads_run_at_once(name):
    """While two threads are inside a call, a third begins and ends one of its own.

    Threads here switch nowhere but where a call lets go of the GIL: whoever finds another inside a call runs beside it.
    Calls get longer until the third's fits in.
    """
    rows = argument(name, make_batch(3))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        assert any(fits_in(name, rows, 250 << attempt) for attempt in range(14))
    finally:
        sys.setswitchinterval(interval)


def fits_in(name, rows, n):
    """Does a call of one row begin and end while two calls of n rows each go on?"""
    inside = [False, False]

    def call(i):
        long = np.lib.stride_tricks.as_strided(rows[i], (n, rows.shape[1]), (0, 4))  # one row, over and over
        into = {"out": long} if "softmax" in name else {}
        inside[i] = True
        ALL[name](long, **into)
        inside[i] = False

    threads = [threading.Thread(target=call, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    begins = all(inside)
    ALL[name](rows[2:])
    ends = all(inside)
    for thread in threads:
        thread.join()
    return begins and ends


def test_a_forked_child_can_sample_with_threads():
    batch = make_batch(64, 3000)
    expected = sampling.sample_batch(batch, seed=1, num_threads=2)
    child = os.fork()
    if child == 0:
        same = np.array_equal(expected, sampling.sample_batch(batch, seed=1, num_threads=2))
        os._exit(0 if same else 1)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_importing_costs_little_and_pulls_in_numpy_alone():
    code = (
        "import sys, time, numpy\n"
        "before = set(sys.modules); t = time.perf_counter()\n"
        "import rvllm.sampling\n"
        "print(time.perf_counter() - t, *(m for m in set(sys.modules) - before if not m.startswith('rvllm')))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for _ in range(5)]
    assert min(float(run.split()[0]) for run in runs) < 0.015
    foreign = [m for m in runs[0].split()[1:] if m.split(".")[0] not in sys.stdlib_module_names]
    assert [m for m in foreign if "cython" not in m.lower()] == []


def test_types(tmp_path):
    api = pytest.importorskip("mypy.api")
    source = Path(__file__).parent / "typing_sampling.py"
    out, _, status = api.run(["--strict", "--cache-dir", str(tmp_path), "--config-file=", str(source)])
    assert status == 0, out
    from mypy import stubtest

    assert stubtest.test_stubs(stubtest.parse_options(["rvllm._native.sampling"])) == 0

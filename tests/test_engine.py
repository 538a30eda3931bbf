"""The engine end to end on a tiny random model: the same tokens however they are scheduled, apart from Python."""

from __future__ import annotations

import ctypes
import gc
import threading
import time

import pytest

from rvllm import LLM, SamplingParams
from rvllm.errors import InvalidRequestError, QueueFullError
from tiny import write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), "llama", vocab_size=320, max_position_embeddings=512)


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> str:
    """The same with a context that takes seconds to fill."""
    return write_checkpoint(tmp_path_factory.mktemp("endless"), "llama", vocab_size=320, max_position_embeddings=65536)


@pytest.fixture
def llm(model):
    with LLM(model, skip_tokenizer=True, threads=2) as llm:
        yield llm


def prompts(n: int, length: int = 20, start: int = 3) -> list[list[int]]:
    return [[(start + 7 * i + 3 * j * (i + 1)) % 317 + 3 for j in range(length + i)] for i in range(n)]


def tokens(outputs) -> list[list[list[int]]]:
    return [[c.token_ids for c in o.choices] for o in outputs]


GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
SAMPLED = SamplingParams(
    temperature=0.9,
    top_p=0.95,
    top_k=50,
    seed=11,
    max_tokens=40,
    ignore_eos=True,
    repetition_penalty=1.1,
    presence_penalty=0.3,
    frequency_penalty=0.2,
)


@pytest.fixture(scope="module")
def alone(model):
    """Tokens of each of 8 prompts run one after the other, without the prefix cache."""
    with LLM(model, skip_tokenizer=True, threads=1, enable_prefix_caching=False) as llm:
        return {
            name: [tokens(llm.generate([p], params))[0] for p in prompts(8)]
            for name, params in (("greedy", GREEDY), ("sampled", SAMPLED))
        }


@pytest.mark.parametrize("name,params", [("greedy", GREEDY), ("sampled", SAMPLED)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pipeline_depth": 2},
        {"max_num_batched_tokens": 16, "max_num_seqs": 8},
        {"max_prefill_chunk": 5},
        {"num_blocks": 14, "max_model_len": 128},
        {"num_blocks": 14, "max_model_len": 128, "pipeline_depth": 2},
        {"num_blocks": 14, "max_model_len": 128, "num_cpu_blocks": 100},
        {"num_blocks": 14, "max_model_len": 128, "num_cpu_blocks": 9, "pipeline_depth": 2},
        {"num_blocks": 28, "num_cpu_blocks": 100, "pipeline_depth": 2, "block_size": 8},
        {"enable_prefix_caching": False},
        {"block_size": 8},
        {"max_num_seqs": 3, "scheduling_policy": "priority"},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()) or "default",
)
def test_same_tokens_however_scheduled(model, alone, name, params, settings):
    with LLM(model, skip_tokenizer=True, threads=2, **settings) as llm:
        assert tokens(llm.generate(prompts(8), params)) == alone[name]
        # Again, now with prefix hits where there is a cache.
        assert tokens(llm.generate(prompts(8), params)) == alone[name]
        stats = llm.engine.stats()
        assert stats.n_running == 0
        assert stats.kv_usage == 0.0
        if "num_blocks" in settings:  # too few for eight sequences, and for keeping their prefixes
            assert stats.preemptions > 0
            moved = min(stats.blocks_swapped_out, stats.blocks_swapped_in)
            assert moved > 4 if "num_cpu_blocks" in settings else moved == 0
        elif settings.get("enable_prefix_caching", True):
            assert stats.prefix_hits > 0
        else:
            assert stats.prefix_hits == 0


def test_choices_are_independent_and_reproducible(llm):
    params = SamplingParams(n=4, temperature=1.0, seed=5, max_tokens=24, ignore_eos=True, logprobs=2)
    (first,) = llm.generate(prompts(1), params)
    (again,) = llm.generate(prompts(1), params)
    assert tokens([first]) == tokens([again])
    assert len({tuple(c.token_ids) for c in first.choices}) == 4
    for choice in first.choices:
        assert len(choice.logprobs) == 24
        for lp in choice.logprobs:
            assert len(lp.top) == 2
            assert lp.logprob <= lp.top[0][1] + 1e-6


def test_prompt_logprobs_do_not_depend_on_chunks_or_cache(model):
    params = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=3)
    seen = []
    for settings in ({}, {"max_prefill_chunk": 4}, {"pipeline_depth": 2}):
        with LLM(model, skip_tokenizer=True, **settings) as llm:
            for _ in range(2):
                (out,) = llm.generate(prompts(1, 50), params)
                seen.append([(p.token_id, p.logprob, p.rank, p.top) for p in out.handle.prompt_logprobs[1:]])
                assert len(seen[-1]) == 49
                assert [p[0] for p in seen[-1]] == prompts(1, 50)[0][1:]
    assert all(s == seen[0] for s in seen)


def test_stop_token_ends_and_is_named(llm):
    (free,) = llm.generate(prompts(1), GREEDY)
    stop = free.choices[0].token_ids[5]
    first = free.choices[0].token_ids.index(stop)
    (out,) = llm.generate(
        prompts(1), SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[stop])
    )
    assert out.choices[0].finish_reason == "stop"
    assert out.choices[0].stop_reason == stop
    assert out.choices[0].token_ids == free.choices[0].token_ids[: first + 1]
    (late,) = llm.generate(
        prompts(1),
        SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop_token_ids=[stop], min_tokens=first + 3),
    )
    assert stop not in late.choices[0].token_ids[: first + 2]


def test_cancel_frees_blocks_within_a_step(endless):
    with LLM(endless, skip_tokenizer=True) as llm:
        got = []
        handle = llm.engine.submit(
            prompts(1)[0],
            SamplingParams(max_tokens=60000, ignore_eos=True),
            on_update=lambda h, chunks: got.extend(chunks),
        )
        while len(got) < 3:
            llm.engine.poll(1.0)
        llm.engine.cancel(handle)
        _wait(lambda: llm.engine.stats().idle)
        assert llm.engine.stats().n_running == 0
        assert llm.engine.stats().kv_usage == 0.0
        assert llm.engine.stats().generation_tokens < 60000
        n = len(got)
        llm.engine.poll(0.05)
        assert len(got) == n


def test_queue_bound_and_deadline(endless):
    with LLM(endless, skip_tokenizer=True, max_num_seqs=1, max_num_queued_reqs=2) as llm:
        long = SamplingParams(max_tokens=60000, ignore_eos=True)
        ended = []
        first = llm.engine.submit(prompts(1)[0], long, on_update=lambda h, c: None)
        _wait(lambda: llm.engine.poll(0.01) or first.scheduled is not None)
        late = llm.engine.submit(prompts(1)[0], long, on_update=lambda h, c: ended.extend(c), deadline_s=0.0)
        llm.engine.submit(prompts(1)[0], long, on_update=lambda h, c: None)
        with pytest.raises(QueueFullError, match="full"):
            llm.engine.submit(prompts(1)[0], long, on_update=lambda h, c: None)
        _wait(lambda: llm.engine.poll(0.01) or late.finished)
        assert [c.finish_reason for c in ended] == ["deadline"]


@pytest.mark.parametrize(
    "prompt,params,field",
    [
        ([], {}, "prompt"),
        ([5, 320], {}, "prompt"),
        ([5] * 512, {}, "prompt"),
        ([5], {"temperature": -1.0}, "temperature"),
        ([5], {"top_p": 0.0}, "top_p"),
        ([5], {"top_k": -2}, "top_k"),
        ([5], {"min_p": 1.5}, "min_p"),
        ([5], {"n": 0}, "n"),
        ([5], {"logit_bias": {320: 1.0}}, "logit_bias"),
        ([5], {"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ([5], {"stop_token_ids": [320]}, "stop_token_ids"),
        ([5], {"logprobs": 21}, "logprobs"),
        ([5], {"min_tokens": 17}, "min_tokens"),
        ([5], {"temperature": float("nan")}, "temperature"),
    ],
)
def test_bad_requests_name_the_field(llm, prompt, params, field):
    with pytest.raises(InvalidRequestError) as error:
        llm.engine.submit(prompt, SamplingParams(**params), on_update=lambda h, c: None)
    assert error.value.param == field
    assert field in str(error.value) or field == "prompt"


def test_steps_go_on_while_python_holds_the_gil(model):
    with LLM(model, skip_tokenizer=True, threads=1) as llm:
        for prompt in prompts(8):
            llm.engine.submit(prompt, SamplingParams(max_tokens=60, ignore_eos=True), on_update=lambda h, c: None)
        ctypes.PyDLL(None).usleep(500_000)  # PyDLL keeps the GIL during the call
        # Every step ran while no Python code could: reading the counters is all that is left to do.
        stats = llm.engine.stats()
        assert stats.generation_tokens == 8 * 60
        assert stats.idle


def test_asleep_when_idle(llm):
    llm.generate(prompts(2), GREEDY)
    _wait(lambda: llm.engine.stats().idle)
    time.sleep(0.05)
    before = llm.engine.stats()
    time.sleep(0.3)
    after = llm.engine.stats()
    assert after.steps == before.steps
    assert after.thread_cpu_s == before.thread_cpu_s


def test_busy_python_threads_do_not_change_tokens(llm, alone):
    stop = threading.Event()

    def garbage():
        while not stop.is_set():
            [[object() for _ in range(1000)] for _ in range(20)]
            gc.collect()

    thread = threading.Thread(target=garbage)
    thread.start()
    try:
        assert tokens(llm.generate(prompts(8), SAMPLED)) == alone["sampled"]
    finally:
        stop.set()
        thread.join()


def _wait(condition, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.001)


def test_what_is_submitted_together_starts_together(llm):
    engine = llm.engine
    arrived: list[list] = []
    with engine.together():
        for p in prompts(5):
            engine.submit(p, GREEDY, on_update=lambda handle, chunks: arrived.append(chunks))
        time.sleep(0.05)
        stats = engine.stats()
        assert stats.idle and stats.n_running == stats.n_waiting == 0
    while engine.n_unfinished:
        engine.poll()
    assert arrived
    first = max(size for size, _ in engine.histograms()["step_tokens"][0])
    assert first >= sum(len(p) for p in prompts(5)) * 31 // 32  # all in one step; sizes are known to 1/32

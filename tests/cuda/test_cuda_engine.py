"""The whole engine on CUDA: greedy tokens against transformers in float32, alone, batched, chunked, preempted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cuda_harness import LONG_NAMES, cublas_options, half

import tiny
from rvllm import LLM, SamplingParams

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("cuda")

N_STEPS = 256
SHAPE = {
    "head_dim": 64,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}
# A token may differ from the reference's where its logit is this close to the largest, in units of the logits' standard
# deviation: what bf16 activations leave undecided.
MARGIN = 0.15


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def checkpoint(request, tmp_path_factory) -> tuple[str, object]:
    """A model with random bf16 weights as a directory, and transformers' model of it in float32."""
    directory = tiny.write_checkpoint(
        tmp_path_factory.mktemp(request.param), request.param, **SHAPE, model_type=request.param
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    return directory, model.to(torch.float32).to("cuda").eval()


def engine(model: str, device: str = "cuda", **settings) -> LLM:
    dtype = LONG_NAMES[half()]
    return LLM(model, device=device, dtype=dtype, skip_tokenizer=True, **({"num_blocks": 2000} | settings))


def assert_follows(reference, prompt: list[int], tokens: list[int]) -> None:
    """Every token is the reference's first choice after the tokens before it, or as good as that."""
    with torch.no_grad():
        ids = torch.tensor([prompt + tokens[:-1]], device="cuda")
        logits = reference(ids).logits[0, len(prompt) - 1 :].float().cpu().numpy()
    short = logits.max(1) - logits[np.arange(len(tokens)), tokens]
    bad = np.flatnonzero(short > MARGIN * logits.std(1))
    assert bad.size == 0, (
        f"token {bad[0]} is worse than the best by {short[bad[0]]:.3f}, std {logits[bad[0]].std():.3f}"
    )
    assert np.mean(short == 0) > (0.9 if len(tokens) >= 100 else 0.7)


def prompts_of(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(3, SHAPE["vocab_size"], n).tolist() for n in lengths]


def greedy(n_tokens: int = N_STEPS) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)


def tokens_of(outputs) -> list[list[int]]:
    assert all(c.finish_reason == "length" for o in outputs for c in o.choices)
    return [o.choices[0].token_ids for o in outputs]


SETTINGS = {
    "default": {},
    "one step at a time": {"pipeline_depth": 1},
    "small chunks": {"max_prefill_chunk": 33, "max_num_batched_tokens": 64, "max_num_seqs": 16},
    "preempted": {"num_blocks": 140, "max_num_seqs": 16},
    "swapped": {"num_blocks": 140, "max_num_seqs": 16, "num_cpu_blocks": 300},
    "no prefix cache": {"enable_prefix_caching": False},
    "cuBLASLt": {"gemm_strategy": "cublas"},
    "hybrid": {"gemm_strategy": "hybrid"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_greedy_tokens_follow_float32(checkpoint, settings):
    model, reference = checkpoint
    prompts = prompts_of([1, 5, 16, 33, 100, 257, 31, 32])
    if "gemm_strategy" in settings:
        cublas_options(settings["gemm_strategy"])
    with engine(model, **settings) as llm:
        together = tokens_of(llm.generate(prompts, greedy()))
        if "num_blocks" in settings:
            assert llm.engine.stats().preemptions > 0
        if "num_cpu_blocks" in settings:
            together += tokens_of(llm.generate(prompts, greedy()))
            assert llm.engine.stats().blocks_swapped_in > 10
    for prompt, tokens in zip(itertools.cycle(prompts), together, strict=False):
        assert len(tokens) == N_STEPS
        assert_follows(reference, prompt, tokens)


def test_a_prompt_that_comes_back_goes_on_as_one_that_stayed(checkpoint):
    """One prompt at a time, so that both engines run the same steps: keys and values are the same bits."""
    model, _ = checkpoint
    prompts = prompts_of([300, 280, 260, 290])

    def again(**settings):
        with engine(model, **settings) as llm:
            for _ in range(2):
                tokens = [tokens_of(llm.generate([p], greedy(64)))[0] for p in prompts]
            return tokens, llm.engine.stats()

    stayed, before = again()
    came_back, after = again(num_blocks=30, num_cpu_blocks=300)
    assert after.blocks_swapped_in > 60 and after.prefix_hits == before.prefix_hits
    assert came_back == stayed


def test_blocks_that_move_beside_decodes_change_no_token(checkpoint):
    model, _ = checkpoint
    decodes, prompts = prompts_of([20, 30, 40, 50]), prompts_of([300, 280, 260, 290, 310, 270, 200, 150])

    def run(**settings):
        with engine(model, batch_invariant=True, max_num_seqs=8, **settings) as llm:
            params = [greedy(150)] * len(decodes) + [greedy(3)] * len(prompts)
            tokens = [tokens_of(llm.generate(decodes + prompts, params)) for _ in range(3)]
            return tokens, llm.engine.stats()

    stayed, _ = run()
    moved, stats = run(num_blocks=110, num_cpu_blocks=400)
    assert stats.blocks_swapped_in > 100 and stats.blocks_swapped_out > 100
    assert moved == stayed


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 25, 40, 41, 64, 65, 127, 129, 255, 256, 257])
def test_around_the_boundaries_of_buckets(checkpoint, n):
    model, reference = checkpoint
    prompts = prompts_of([3 + i % 40 for i in range(n)])
    with engine(model, max_num_seqs=260) as llm:
        together = tokens_of(llm.generate(prompts, greedy(24)))
    for prompt, tokens in list(zip(prompts, together, strict=True))[:: max(1, n // 4)]:
        assert_follows(reference, prompt, tokens)


def test_long_context(checkpoint):
    model, reference = checkpoint
    prompts = prompts_of([1900, 20])
    with engine(model) as llm:
        for prompt, tokens in zip(prompts, tokens_of(llm.generate(prompts, greedy(100))), strict=True):
            assert_follows(reference, prompt, tokens)


def test_batch_invariant_rows_are_equal_alone_and_in_any_batch(checkpoint):
    model, _ = checkpoint
    prompts = prompts_of([40, 7, 300, 64, 33, 90, 12, 500, 21, 22, 23, 24])
    params = SamplingParams(temperature=0.9, top_p=0.95, max_tokens=64, ignore_eos=True, seed=3)
    with engine(model, batch_invariant=True) as llm:
        together = tokens_of(llm.generate(prompts, params))
        alone = [tokens_of(llm.generate([p], params))[0] for p in prompts]
    assert together == alone
    small = {"max_num_batched_tokens": 48, "max_num_seqs": 6, "enable_prefix_caching": False}
    with engine(model, batch_invariant=True, **small) as llm:
        assert tokens_of(llm.generate(prompts, params)) == alone


def test_options_of_the_sampler_arrive(checkpoint):
    model, _ = checkpoint
    prompt = prompts_of([12])[0]
    with engine(model) as llm:
        base = llm.generate([prompt], greedy(8))[0].choices[0].token_ids

        def run(**options):
            params = SamplingParams(max_tokens=8, ignore_eos=True, **({"temperature": 0} | options))
            return llm.generate([prompt], params)[0]

        assert run(logit_bias={17: 100.0}).choices[0].token_ids == [17] * 8
        assert base[0] not in run(logit_bias={base[0]: -100.0}).choices[0].token_ids[:1]
        assert set(run(allowed_token_ids=[5, 6]).choices[0].token_ids) <= {5, 6}
        assert run(stop_token_ids=[base[2]]).choices[0].finish_reason == "stop"
        assert len(run(stop_token_ids=[base[2]], min_tokens=6).choices[0].token_ids) >= 6
        penalised = run(presence_penalty=2.0, frequency_penalty=2.0, repetition_penalty=5.0).choices[0].token_ids
        assert len(set(penalised)) == 8
        with_logprobs = run(logprobs=3, prompt_logprobs=2)
        assert [t.token_id for t in with_logprobs.choices[0].logprobs] == base
        assert all(
            t.rank == 1 and len(t.top) == 3 and t.top[0][0] == t.token_id for t in with_logprobs.choices[0].logprobs
        )
        assert len(with_logprobs.handle.prompt_logprobs) == len(prompt)
        choices = run(temperature=1.0, n=3, seed=1).choices
        assert len({tuple(c.token_ids) for c in choices}) > 1


def test_requests_that_come_and_go_leave_others_alone(checkpoint):
    model, reference = checkpoint
    prompts = prompts_of([30] * 6)
    with engine(model) as llm:
        params = [greedy(n) for n in (3, 200, 17, 90, 1, 64)]
        outputs = llm.generate(prompts, params)
    for prompt, output, p in zip(prompts, outputs, params, strict=True):
        assert len(output.choices[0].token_ids) == p.max_tokens
        assert_follows(reference, prompt, output.choices[0].token_ids)

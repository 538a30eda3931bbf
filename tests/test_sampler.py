"""The engine's sampler against a float64 reference: masks, penalties, draws, log-probabilities, histories."""

import os
import subprocess
import sys

import numpy as np
import pytest

import sampling_reference as ref
from rvllm._native.sampler import Sampler

VOCAB = 997


def make_logits(seed, rows=1, vocab=VOCAB, scale=3.0):
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * scale).astype(np.float32)


def draw_one(logits, *, prompt=(1, 2, 3), output=(), token_index=0, row=None, **params):
    sampler = Sampler(1, logits.shape[-1], 20, 1)
    sampler.add(0, prompt, output, **params)
    rows = [{"logit_row": 0, "slot": 0, "token_index": token_index, **(row or {})}]
    return sampler.step(logits.reshape(1, -1), rows)[0]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 2.5, "top_p": 0.8},
        {"top_k": 7},
        {"top_k": 50, "top_p": 0.9, "temperature": 0.8},
        {"min_p": 0.05},
        {"min_p": 0.02, "top_k": 30, "top_p": 0.95, "temperature": 1.3},
    ],
)
def test_draws_equal_the_reference(params):
    filters = {k: v if k == "top_k" else np.float32(v).item() for k, v in params.items()}
    temperature = filters.get("temperature", 1.0)
    for seed in range(60):
        logits = make_logits(seed)
        mask, margin = ref.kept(logits[0], **filters)
        token, draw_margin = ref.draw(logits[0], mask, temperature, ref.random_bits(seed << 33 | 5, 2, seed))
        got = draw_one(logits, token_index=seed, seed=seed << 33 | 5, choice=2, **params)
        assert not got["failed"]
        if min(margin, draw_margin) > 1e-6:
            assert got["token"] == got["last_token"] == token


def test_penalties_count_prompt_and_output_as_documented():
    logits = make_logits(3)
    prompt, output = [5, 5, 9, 11], [9, 20, 20, 20, 21]
    params = {"repetition_penalty": 1.7, "frequency_penalty": 0.9, "presence_penalty": 0.4}
    expected = ref.penalize(logits[0], prompt, output, 1.7, 0.9, 0.4)
    assert draw_one(logits, prompt=prompt, output=output, temperature=0, **params)["token"] == expected.argmax()
    # Through the distribution as well: the reference draws from its own penalised row.
    for seed in range(40):
        token, margin = ref.draw(expected, expected > -np.inf, 1.0, ref.random_bits(seed, 0, 5))
        got = draw_one(logits, prompt=prompt, output=output, token_index=5, seed=seed, **params)
        assert got["token"] == token or margin < 1e-5


def test_repetition_penalty_applies_once_per_distinct_token():
    logits = np.zeros((1, 8), np.float32)
    logits[0] = [4.0, 3.0, 2.5, 0, 0, 0, 0, 0]
    # Once: 4 / 1.5 = 2.67 < 3. Twice would be 1.78 < 2.5; three times, 1.19.
    got = draw_one(logits, prompt=[0, 0, 0, 1], output=[0, 1], temperature=0, repetition_penalty=1.5)
    assert got["token"] == 0


def test_bias_masks_and_stop_suppression():
    logits = make_logits(4)
    order = np.argsort(-logits[0])
    best, second, third = (int(t) for t in order[:3])
    greedy = {"temperature": 0.0}
    assert draw_one(logits, **greedy)["token"] == best
    assert draw_one(logits, logit_bias=[(third, 100.0)], **greedy)["token"] == third
    assert draw_one(logits, logit_bias=[(best, -100.0)], **greedy)["token"] == second
    assert draw_one(logits, allowed_token_ids=[third, int(order[50])], **greedy)["token"] == third
    stops = {"eos_token_ids": [best], "stop_token_ids": [second], **greedy}
    assert draw_one(logits, **stops)["token"] == best
    assert draw_one(logits, row={"suppress_stop": True}, **stops)["token"] == third
    assert draw_one(logits, row={"suppress_stop": True}, ignore_eos=True, **stops)["token"] == best
    # A mask on every token leaves nothing to draw; that row alone fails.
    assert draw_one(logits, allowed_token_ids=[best], logit_bias=[(best, -np.inf)])["failed"]


def test_bad_words_follow_the_outputs():
    logits = make_logits(5)
    best, second = (int(t) for t in np.argsort(-logits[0])[:2])
    word = {"bad_words": [[7, 8, best]], "temperature": 0.0}
    assert draw_one(logits, output=[7, 8], **word)["token"] == second
    assert draw_one(logits, output=[1, 7, 8], **word)["token"] == second
    assert draw_one(logits, output=[8, 7], **word)["token"] == best
    assert draw_one(logits, output=[8], **word)["token"] == best
    assert draw_one(logits, prompt=[7, 8], **word)["token"] == best  # as in vLLM: outputs only
    assert draw_one(logits, bad_words=[[best]], temperature=0.0)["token"] == second


def test_history_follows_the_samplers_own_draws():
    """Steps in flight: the penalties of step i + 1 see the draw of step i without a word from the host."""
    vocab, steps = 300, 40
    params = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.3, "seed": 11,
              "max_tokens": steps, "bad_words": [[4, 5], [1, 2, 3]]}  # fmt: skip
    rows = [make_logits(100 + i, vocab=vocab) for i in range(steps)]
    sampler = Sampler(4, vocab, 0, 1)
    sampler.add(2, [1, 2, 3], **params)
    tokens = []
    for i, logits in enumerate(rows):
        tokens.append(sampler.step(logits, [{"logit_row": 0, "slot": 2, "token_index": i}])[0]["token"])
    for i in (1, 7, 39):  # preempted before step i, and resumed with the outputs so far
        resumed = Sampler(1, vocab, 0, 1)
        resumed.add(0, [1, 2, 3], tokens[:i], **params)
        for j in range(i, steps):
            got = resumed.step(rows[j], [{"logit_row": 0, "slot": 0, "token_index": j}])[0]["token"]
            assert got == tokens[j]


def test_logprobs_are_of_raw_logits():
    logits = make_logits(6)
    p = ref.softmax(logits[0])
    order = np.argsort(-logits[0], kind="stable")
    got = draw_one(logits, row={"n_top": 5}, temperature=0.3, top_k=3, logit_bias=[(int(order[4]), 50.0)])
    assert got["token"] == order[4] and got["rank"] == 5
    assert got["logprob"] == pytest.approx(np.log(p[order[4]]), abs=1e-5)
    assert [t for t, _ in got["top"]] == order[:5].tolist()
    np.testing.assert_allclose([v for _, v in got["top"]], np.log(p[order[:5]]), atol=1e-5)
    plain = draw_one(logits, row={"n_top": 0})
    assert plain["top"] == [] and plain["logprob"] == pytest.approx(np.log(p[plain["token"]]), abs=1e-5)
    assert draw_one(logits)["rank"] == 0  # not asked for


def test_scored_rows_do_not_draw():
    logits = make_logits(7)
    p = ref.softmax(logits[0])
    got = draw_one(logits, row={"target": 17, "n_top": 2}, temperature=0.0)
    assert got["token"] == 17 and got["last_token"] == 0
    assert got["logprob"] == pytest.approx(np.log(p[17]), abs=1e-5)
    assert got["rank"] == 1 + int((logits[0] > logits[0, 17]).sum())
    assert len(got["top"]) == 2


def test_failed_rows_fail_alone():
    logits = make_logits(8, rows=4)
    logits[1, 500] = np.nan
    logits[2] = -np.inf
    logits[3, [5, 9]] = np.inf
    sampler = Sampler(4, VOCAB, 3, 2)
    for slot in range(4):
        sampler.add(slot, [1], seed=slot, top_p=0.9)
    got = sampler.step(logits, [{"logit_row": i, "slot": i, "token_index": 0, "n_top": 3} for i in range(4)])
    assert [g["failed"] for g in got] == [False, True, True, False]
    assert got[1]["token"] == -1 and got[1]["last_token"] == 0
    assert got[3]["token"] in (5, 9)
    assert got[3]["logprob"] == pytest.approx(np.log(0.5)) and got[3]["rank"] == 1


def mixed_batch(n_threads, order=None):
    """64 rows of mixed parameters; choices share rows of logits. Returns their tokens by slot."""
    logits = make_logits(9, rows=16, vocab=5000)
    before = logits.copy()
    sampler = Sampler(64, 5000, 4, n_threads)
    kinds = [
        {"temperature": 0.0},
        {"temperature": 0.9, "top_p": 0.9},
        {"top_k": 40, "repetition_penalty": 1.2},
        {"min_p": 0.01, "frequency_penalty": 0.5},
    ]
    for slot in range(64):
        sampler.add(slot, list(range(slot)), [7] * (slot % 3), choice=slot // 16, seed=slot % 16, **kinds[slot % 4])
    rows = [{"logit_row": s % 16, "slot": s, "token_index": s % 5, "n_top": s % 3 - 1} for s in range(64)]
    rows = [rows[i] for i in (order or range(64))]
    got = sampler.step(logits, rows)
    assert np.array_equal(before, logits)
    return {
        row["slot"]: (g["token"], g["logprob"], g["rank"], tuple(g["top"])) for row, g in zip(rows, got, strict=True)
    }


def test_draws_do_not_depend_on_batch_or_threads():
    everything = mixed_batch(1)
    assert mixed_batch(2) == everything
    assert mixed_batch(3, list(reversed(range(64)))) == everything
    alone = {}
    for slot in range(64):
        alone |= mixed_batch(1, [slot])
    assert alone == everything


@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
def test_draws_do_not_depend_on_the_instruction_set(isa):
    code = "import test_sampler; print(sorted(test_sampler.mixed_batch(1).items()))"
    env = os.environ | {"RVLLM_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(sorted(mixed_batch(1).items()))

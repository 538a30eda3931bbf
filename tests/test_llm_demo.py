"""The demo model through LLM: text, stop strings and their books."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import rvllm
from rvllm import LLM, SamplingParams
from rvllm.errors import InvalidRequestError, RvllmError

DEMO = Path(rvllm.__file__).parent / "demo"
STORY = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture(scope="module")
def llm():
    with LLM(str(DEMO)) as llm:
        yield llm


def greedy(**fields) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=80, **fields)


def test_answers(llm):
    (out,) = llm.chat([{"role": "user", "content": "What is 17 + 5?"}], greedy())
    assert "22" in out.choices[0].text
    assert out.choices[0].finish_reason == "stop"
    assert out.choices[0].stop_reason is None


def test_text_is_the_tokens_decoded(llm):
    (out,) = llm.chat(STORY, greedy())
    choice = out.choices[0]
    assert choice.finish_reason == "length"
    assert choice.text == llm.engine.tokenizer.decode(choice.token_ids)


@pytest.mark.parametrize("include", [False, True])
def test_stop_string_ends_the_answer_and_its_count(llm, include):
    (free,) = llm.chat(STORY, greedy())
    text = free.choices[0].text
    stop = text[40:49]
    (out,) = llm.chat(STORY, greedy(stop=[stop, "never said"], include_stop_str_in_output=include))
    choice = out.choices[0]
    assert choice.finish_reason == "stop"
    assert choice.stop_reason == stop
    end = text.index(stop)
    assert choice.text == text[: end + len(stop) if include else end]
    assert free.choices[0].token_ids[: len(choice.token_ids)] == choice.token_ids
    assert out.handle.n_generated == len(choice.token_ids)
    # The last token counted is the one that completed the stop string.
    decode = llm.engine.tokenizer.decode
    assert stop in decode(choice.token_ids)
    assert stop not in decode(choice.token_ids[:-1])


def test_one_choice_stops_and_the_others_go_on(llm):
    params = SamplingParams(n=4, temperature=1.2, seed=3, max_tokens=60)
    (free,) = llm.chat(STORY, params)
    stop = free.choices[0].text[30:36]
    hit = [stop in c.text for c in free.choices]
    assert hit[0]
    (out,) = llm.chat(STORY, SamplingParams(n=4, temperature=1.2, seed=3, max_tokens=60, stop=[stop]))
    for before, after, stopped in zip(free.choices, out.choices, hit, strict=True):
        if stopped:
            assert after.stop_reason == stop
            assert after.text == before.text[: before.text.index(stop)]
        else:
            assert after.text == before.text
    assert llm.engine.n_unfinished == 0


def test_stop_token_text_is_shown_only_when_asked_for(llm):
    (free,) = llm.chat(STORY, greedy())
    stop = free.choices[0].token_ids[7]
    at = free.choices[0].token_ids.index(stop)
    decode = llm.engine.tokenizer.decode
    for include in (False, True):
        (out,) = llm.chat(STORY, greedy(stop_token_ids=[stop], include_stop_str_in_output=include))
        choice = out.choices[0]
        assert choice.token_ids == free.choices[0].token_ids[: at + 1]
        assert choice.text == decode(choice.token_ids if include else choice.token_ids[:-1])


def test_prefix_of_a_conversation_is_found_again(llm):
    long = [{"role": "user", "content": "Tell me a story about a fox. " * 8}]
    (first,) = llm.chat(long, greedy())
    turn = [*long, {"role": "assistant", "content": first.choices[0].text}, {"role": "user", "content": "Thanks!"}]
    (second,) = llm.chat(turn, greedy())
    assert second.handle.n_cached >= len(first.prompt_token_ids) // 16 * 16


def test_stop_may_be_one_string_and_lists_none(llm):
    (listed,) = llm.chat(STORY, greedy(stop=["fox"]))
    (alone,) = llm.chat(STORY, greedy(stop="fox", stop_token_ids=None, bad_words=None))
    assert alone.choices == listed.choices
    assert alone.choices[0].stop_reason == "fox"


def test_numbers_may_be_numpys(llm):
    ids = np.array([5, 6, 7])
    (mine,) = llm.generate([ids], SamplingParams(max_tokens=np.int64(3), top_p=np.float32(0.5), temperature=0))
    assert mine.choices[0].token_ids == llm.generate([[5, 6, 7]], greedy())[0].choices[0].token_ids[:3]


@pytest.mark.parametrize(
    ("prompts", "params", "sentence"),
    [
        ([1, 2], None, "a prompt must be a text or a list of token ids"),
        ([["a"]], None, "a prompt must be a text or a list of token ids"),
        ([[1.5]], None, "a prompt must be a text or a list of token ids"),
        ("a", {"n": 1}, "params must be SamplingParams, not str"),
        ("a", SamplingParams(temperature="hot"), "Expected `float`, got `str` - at `temperature`"),
        ("a", SamplingParams(max_tokens=1.5), "Expected `int | null`, got `float` - at `max_tokens`"),
        ("a", SamplingParams(stop=[5]), "Expected `str`, got `int` - at `stop"),
        ("a", SamplingParams(seed=object()), "is not a number"),
    ],
)
def test_wrong_types_are_told(llm, prompts, params, sentence):
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        llm.generate(prompts, params)
    assert llm.engine.n_unfinished == 0


def test_messages_that_are_none(llm):
    for messages in ("Hi", ["Hi"], None):
        with pytest.raises(InvalidRequestError, match="messages must be a list of"):
            llm.chat(messages)


def test_a_closed_engine_refuses():
    llm = LLM(str(DEMO))
    llm.close()
    llm.close()
    with pytest.raises(RvllmError, match="the engine is closed"):
        llm.generate("a")

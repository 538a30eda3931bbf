"""Decoding of request bodies: what is refused, and which field is named."""

import json

import pytest

from rvllm.serve.errors import ApiError
from rvllm.serve.schema import UNSUPPORTED, ChatRequest, CompletionRequest, decode, ignored_header

CASES = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"7", None),
    (b'{"prompt": "\xff"}', None),
    (b'{"prompt": "\\ud800"}', None),
    (b'{"prompt": "a", "temperature": NaN}', None),
    (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    (b'{"unknown": ' + b"[" * 100_000 + b"}", None),
    (b"{}", "prompt"),
    (b'{"prompt": null}', "prompt"),
    (b'{"prompt": {"a": 1}}', "prompt"),
    (b'{"prompt": "a", "max_tokens": "5"}', "max_tokens"),
    (b'{"prompt": "a", "max_tokens": 1.5}', "max_tokens"),
    (b'{"prompt": "a", "max_tokens": true}', "max_tokens"),
    (b'{"prompt": "a", "max_tokens": -1}', "max_tokens"),
    (b'{"prompt": "a", "max_tokens": 99999999999999999999}', "max_tokens"),
    (b'{"prompt": "a", "temperature": "hot"}', "temperature"),
    (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
    (b'{"prompt": "a", "stop": 5}', "stop"),
    (b'{"prompt": "a", "stop": ["x", 5]}', "stop[1]"),
    (b'{"prompt": "a", "stream": "yes"}', "stream"),
    (b'{"prompt": "a", "stream_options": {"include_usage": 3}}', "stream_options.include_usage"),
    (b'{"prompt": "a", "logit_bias": {"x": 1}}', "logit_bias"),
    (b'{"prompt": "a", "logit_bias": {"1": 101}}', "logit_bias"),
    (b'{"prompt": "a", "logit_bias": [1]}', "logit_bias"),
    (b'{"prompt": "a", "stop_token_ids": [-1]}', "stop_token_ids[0]"),
    (b'{"prompt": "a", "cache_salt": ""}', "cache_salt"),
    (b'{"prompt": "a", "truncate_prompt_tokens": -2}', "truncate_prompt_tokens"),
]


@pytest.mark.parametrize(("body", "param"), CASES, ids=lambda v: repr(v)[:60])
def test_bad_bodies_are_400_and_name_the_field(body, param):
    with pytest.raises(ApiError) as caught:
        decode(body, CompletionRequest)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert "\n" not in caught.value.message


def test_null_means_not_given():
    names = [n for n in CompletionRequest.__struct_fields__ if n != "prompt"]
    request, ignored = decode(json.dumps({"prompt": "a", **dict.fromkeys(names)}).encode(), CompletionRequest)
    assert request == CompletionRequest(prompt="a")
    assert not ignored


def test_unknown_fields_are_reported_and_known_ones_are_not():
    request, ignored = decode(b'{"prompt": "a", "foo": 1, "seed": 3, "bar": [{}]}', CompletionRequest)
    assert ignored == ["foo", "bar"]
    assert request.seed == 3
    options = b'{"prompt": "a", "stream": true, "stream_options": {"include_usag": true, "include_usage": true}}'
    assert decode(options, CompletionRequest)[1] == ["stream_options.include_usag"]


def test_ignored_names_cannot_break_the_header():
    header = ignored_header(["a\r\nSet-Cookie: x", "é", "x" * 1000])["x-rvllm-ignored-fields"]
    assert header.isascii()
    assert header.isprintable()
    assert len(header) < 200


@pytest.mark.parametrize("kind", UNSUPPORTED, ids=lambda k: k.__name__)
def test_every_unsupported_field_is_refused_by_name_unless_it_asks_for_nothing(kind):
    start = {"prompt": "a"} if kind is CompletionRequest else {"messages": [{"role": "user", "content": "a"}]}
    for name, refusal in UNSUPPORTED[kind].items():
        with pytest.raises(ApiError) as caught:
            decode(json.dumps({**start, name: {"some": "thing"}}).encode(), kind)
        assert caught.value.param == name
        assert caught.value.message.startswith(name)
        for value in (None, *refusal.harmless):
            assert decode(json.dumps({**start, name: value}).encode(), kind)[1] == []


def test_no_field_is_both_served_and_refused():
    for kind, refused in UNSUPPORTED.items():
        assert not set(refused) & set(kind.__struct_fields__)


SAMPLING = """
    n temperature top_p top_k min_p repetition_penalty frequency_penalty presence_penalty seed stop stop_token_ids
    include_stop_str_in_output ignore_eos min_tokens max_tokens logit_bias allowed_token_ids bad_words
    skip_special_tokens spaces_between_special_tokens truncate_prompt_tokens add_special_tokens logprobs prompt_logprobs
    logprob_token_ids return_token_ids return_tokens_as_token_ids priority cache_salt request_id structured_outputs
    response_format model user stream stream_options echo
"""
CHAT = """
    messages top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls reasoning_effort chat_template
    chat_template_kwargs add_generation_prompt continue_final_message
"""


@pytest.mark.parametrize(
    ("kind", "names"), [(CompletionRequest, SAMPLING + "prompt suffix"), (ChatRequest, SAMPLING + CHAT)]
)
def test_no_field_of_the_api_is_ignored(kind, names):
    assert set(names.split()) <= set(kind.__struct_fields__) | set(UNSUPPORTED[kind])

"""Bad input gets the API's error object, names its field, and disturbs nobody."""

import concurrent.futures
import http.client
import json

import openai
import pytest

from .harness import MODEL, running_server

USER = [{"role": "user", "content": "Hi"}]
COMPLETIONS = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [[1], "a"]}, "prompt[1]"),
    ({"prompt": ["a", [1]]}, "prompt[1]"),
    ({"prompt": [1, "a"]}, "prompt[1]"),
    ({"prompt": [1, 2.5]}, "prompt[1]"),
    ({"prompt": [1, -1]}, "prompt[1]"),
    ({"prompt": [1, 1 << 30]}, "prompt"),
    ({"prompt": [1 << 70]}, "prompt[0]"),
    ({"prompt": [True]}, "prompt[0]"),
    ({"prompt": [[5], [5, "a"]]}, "prompt[1][1]"),
    ({"prompt": "a", "n": 0}, "n"),
    ({"prompt": "a", "n": 1 << 20}, "n"),
    ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ({"prompt": "a", "min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"prompt": "a", "temperature": -0.1}, "temperature"),
    ({"prompt": "a", "top_p": 0}, "top_p"),
    ({"prompt": "a", "top_p": 1.1}, "top_p"),
    ({"prompt": "a", "top_k": -2}, "top_k"),
    ({"prompt": "a", "min_p": 2}, "min_p"),
    ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
    ({"prompt": "a", "frequency_penalty": 3}, "frequency_penalty"),
    ({"prompt": "a", "presence_penalty": -3}, "presence_penalty"),
    ({"prompt": "a", "seed": 1 << 70}, "seed"),
    ({"prompt": "a", "stop": ""}, "stop"),
    ({"prompt": "a", "stop": ["x", ""]}, "stop"),
    ({"prompt": "a", "stop": ["x" * 5000] * 4}, "stop"),
    ({"prompt": "a", "bad_words": ["x"] * 1025}, "bad_words"),
    ({"prompt": "a", "bad_words": ["x" * 17000]}, "bad_words"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "prompt_logprobs": 21}, "prompt_logprobs"),
    ({"prompt": "a", "prompt_logprobs": -1}, "prompt_logprobs"),
    ({"prompt": "a", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"prompt": "a", "stop_token_ids": [1 << 30]}, "stop_token_ids"),
    ({"prompt": "a", "allowed_token_ids": [1 << 30]}, "allowed_token_ids"),
    ({"prompt": "a", "allowed_token_ids": []}, "allowed_token_ids"),
    ({"prompt": "a", "logit_bias": {str(1 << 30): 1}}, "logit_bias"),
    ({"prompt": "a", "bad_words": [""]}, "bad_words"),
    ({"prompt": "a", "priority": 1}, "priority"),
    ({"prompt": "a", "stream_options": {}}, "stream_options"),
    ({"prompt": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ({"prompt": "a", "response_format": {"type": "json_object"}}, "response_format"),
    ({"prompt": "a", "logprob_token_ids": [1]}, "logprob_token_ids"),
]
CHAT = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": 3, "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [*USER, {"role": "user", "content": 3}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages"),
    ({"messages": USER, "top_logprobs": 2}, "top_logprobs"),
    ({"messages": USER, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"messages": USER, "logprobs": 5}, "logprobs"),
    ({"messages": USER, "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"messages": USER, "tool_choice": "required"}, "tool_choice"),
    ({"messages": USER, "response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
    ({"messages": USER, "structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
    ({"messages": USER, "chat_template": "x"}, "chat_template"),
    ({"messages": USER, "chat_template_kwargs": 3}, "chat_template_kwargs"),
    ({"messages": USER, "max_tokens": 0}, "max_tokens"),
    ({"messages": USER, "max_completion_tokens": 0}, "max_completion_tokens"),
    ({"messages": [{"role": "user", "content": "Hi" * 9000}]}, "messages"),
    ({"messages": USER, "continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [("/v1/completions", *case) for case in COMPLETIONS] + [("/v1/chat/completions", *case) for case in CHAT],
    ids=lambda v: json.dumps(v)[:50] if isinstance(v, dict) else str(v),
)
def test_400_names_the_field(server, path, body, param):
    reply = server.post(path, body)
    assert reply.status == 400, reply.body[:300]
    error = reply.error()
    assert error["type"] == "BadRequestError"
    assert error["param"] == param
    assert server.engine.n_unfinished == 0


@pytest.mark.parametrize(
    ("field", "value"), [("top_logprobs", 21), ("max_tokens", 0), ("max_completion_tokens", 0), ("n", 0)]
)
def test_sentences_about_chat_name_its_own_fields(server, field, value):
    body = {"messages": USER, "logprobs": True, field: value}
    assert server.post("/v1/chat/completions", body).error()["message"].startswith(f"{field} must be")


def test_a_prompt_beyond_the_context_is_told_both_numbers(server):
    limit = server.engine.max_model_len
    for n in (limit, limit + 1, 3 * limit):
        reply = server.post("/v1/completions", {"prompt": [5] * n, "max_tokens": 1})
        assert reply.status == 400
        message = reply.error()["message"]
        assert str(limit) in message
        assert str(n) in message
    reply = server.post("/v1/completions", {"prompt": [5] * (limit - 1), "max_tokens": 1})
    assert reply.status == 200


def test_max_tokens_beyond_the_context_is_told_all_numbers(server):
    limit = server.engine.max_model_len
    for path, body, name in (
        ("/v1/completions", {"prompt": [5] * 10}, "max_tokens"),
        ("/v1/chat/completions", {"messages": USER}, "max_tokens"),
        ("/v1/chat/completions", {"messages": USER}, "max_completion_tokens"),
    ):
        error = server.post(path, {**body, name: limit}).error()
        assert error["param"] == name
        assert str(limit) in error["message"]
    # The default of 16 gives way instead.
    answer = server.post("/v1/completions", {"prompt": [5] * (limit - 4), "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b"[" * 50_000])
def test_bodies_that_are_no_request(server, path, body):
    reply = server.post(path, body)
    assert (reply.status, reply.error()["type"]) == (400, "BadRequestError")


def test_more_prompts_than_the_queue_takes_are_refused_before_any_work(server):
    n = server.engine.config.max_num_queued_reqs + server.engine.loaded.sizes.max_num_seqs + 1
    for prompt in ([[5]] * n, ["a"] * n):
        error = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1}).error()
        assert error["param"] == "prompt"
        assert str(n) in error["message"]


def test_detokenize_checks_the_vocabulary(server):
    for tokens in ([1 << 30], [-1], ["a"], [server.engine.vocab_size]):
        reply = server.post("/detokenize", {"tokens": tokens})
        assert reply.status == 400
        assert reply.error()["param"].startswith("tokens")


def test_unknown_model_and_unknown_paths(server, client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=USER)
    assert caught.value.body["param"] == "model"
    assert caught.value.body["type"] == "NotFoundError"
    for path in ("/tokenize", "/v1/completions"):
        assert server.post(path, {"prompt": "a", "model": "gpt-4"}).status == 404
    error = server.post("/v1/embeddings", {"input": "a"}).error()
    assert (error["code"], error["message"]) == (404, "this server has no endpoint POST /v1/embeddings")
    reply = server.request("GET", "/v1/completions")
    error = reply.error()
    assert (error["code"], error["message"]) == (405, "/v1/completions does not take GET, only POST")
    assert reply.headers["Allow"] == "POST"


def test_a_body_over_the_limit_is_413(server):
    limit = server.service.options.max_body_bytes
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/v1/completions")
    connection.putheader("Content-Length", str(limit + 1))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert json.loads(response.read())["error"]["code"] == 413
    connection.close()

    with running_server(max_body_bytes=1000) as small:
        assert small.post("/v1/completions", {"prompt": "a" * 990}).error()["code"] == 413
        chunked = http.client.HTTPConnection("127.0.0.1", small.port, timeout=10)
        chunked.request("POST", "/v1/completions", iter([b"x" * 600, b"x" * 600]), encode_chunked=True)
        assert chunked.getresponse().status == 413
        chunked.close()


def test_unknown_fields_are_named_in_a_header_or_refused(server):
    body = {"prompt": "a", "max_tokens": 1, "wibble": 1, "wobble": {}}
    reply = server.post("/v1/completions", body)
    assert reply.status == 200
    assert reply.headers["x-rvllm-ignored-fields"] == "wibble,wobble"
    assert "x-rvllm-ignored-fields" not in server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).headers
    with running_server(strict_params=True) as strict:
        reply = strict.post("/v1/completions", body)
        assert (reply.status, reply.error()["param"]) == (400, "wibble")
        assert strict.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200


def test_bad_requests_do_not_disturb_a_running_one(server, client):
    greedy = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 150}
    greedy["extra_body"] = {"ignore_eos": True}
    alone = client.completions.create(**greedy).choices[0].text
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(client.completions.create, **greedy) for _ in range(2)]
        for body, _ in COMPLETIONS:
            assert server.post("/v1/completions", body).status == 400
        assert [r.result().choices[0].text for r in running] == [alone, alone]

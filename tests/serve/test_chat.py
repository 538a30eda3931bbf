"""POST /v1/chat/completions with the openai client, /tokenize, /detokenize and /v1/models."""

import openai
import pytest

from .harness import MODEL, running_server

MESSAGES = [{"role": "user", "content": "Hello, who are you?"}]
GREEDY = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 24}


def test_whole_answer(client):
    answer = client.chat.completions.create(**GREEDY)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_greedy_stream_equals_the_whole_answer(client):
    whole = client.chat.completions.create(**GREEDY)
    for options in (openai.omit, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}):
        chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options=options))
        assert all(c.object == "chat.completion.chunk" for c in chunks)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert sum(c.choices[0].delta.role is not None for c in chunks if c.choices) == 1
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert reasons == [None] * (len(reasons) - 1) + [whole.choices[0].finish_reason]
        if options is not openai.omit:
            assert chunks[-1].choices == []
            assert chunks[-1].usage == whole.usage.model_copy(
                update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
            )


def test_the_answer_goes_up_to_the_context_when_nobody_says(server):
    body = {"messages": MESSAGES, "ignore_eos": True}
    usage = server.post("/v1/chat/completions", body).json()["usage"]
    assert usage["total_tokens"] == server.engine.max_model_len


def test_n_and_stop(client):
    answer = client.chat.completions.create(**{**GREEDY, "temperature": 1.2}, n=4, seed=3)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert len({c.message.content for c in answer.choices}) > 1
    streamed = [""] * 4
    roles = 0
    for chunk in client.chat.completions.create(**{**GREEDY, "temperature": 1.2}, n=4, seed=3, stream=True):
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        roles += choice.delta.role is not None
    assert roles == 4
    assert streamed == [c.message.content for c in answer.choices]

    text = client.chat.completions.create(**GREEDY).choices[0].message.content
    stop = text[5:8]
    stopped = client.chat.completions.create(**GREEDY, stop=stop).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.stop_reason == stop


def test_logprobs(client):
    answer = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=2, extra_body={"ignore_eos": True})
    (choice,) = answer.choices
    content = choice.logprobs.content
    assert len(content) == answer.usage.completion_tokens
    text = b"".join(bytes(entry.bytes) for entry in content).decode(errors="replace")
    assert text.startswith(choice.message.content[:10])
    for entry in content:
        assert len(entry.top_logprobs) == 2
        assert entry.logprob == entry.top_logprobs[0].logprob >= entry.top_logprobs[1].logprob
    streamed = client.chat.completions.create(
        **GREEDY, logprobs=True, top_logprobs=2, stream=True, extra_body={"ignore_eos": True}
    )
    pieces = [e for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [(e.token, e.logprob) for e in pieces] == [(e.token, e.logprob) for e in content]

    plain = client.chat.completions.create(**GREEDY, logprobs=True)
    assert all(entry.top_logprobs == [] for entry in plain.choices[0].logprobs.content)


def test_content_parts_are_the_same_as_their_text(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
    answers = [client.chat.completions.create(**{**GREEDY, "messages": m}) for m in (MESSAGES, parts)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens


def test_continuing_the_last_message(server):
    whole = server.post("/v1/chat/completions", {**GREEDY, "return_token_ids": True}).json()
    text = whole["choices"][0]["message"]["content"]
    start = text[: text.index(" ")]
    body = {**GREEDY, "messages": [*MESSAGES, {"role": "assistant", "content": start}], "continue_final_message": True}
    plain = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    echoed = server.post("/v1/chat/completions", {**body, "echo": True}).json()["choices"][0]["message"]
    assert plain["role"] == "assistant"
    assert echoed["content"] == start + plain["content"]
    streamed = server.events("/v1/chat/completions", {**body, "echo": True})
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == echoed["content"]


def test_token_ids_and_prompt_logprobs(server):
    body = {**GREEDY, "return_token_ids": True, "prompt_logprobs": 1}
    answer = server.post("/v1/chat/completions", body).json()
    tokens = server.post("/tokenize", {"messages": MESSAGES}).json()["tokens"]
    assert answer["prompt_token_ids"] == tokens
    assert len(answer["prompt_logprobs"]) == len(tokens)
    assert len(answer["choices"][0]["token_ids"]) == answer["usage"]["completion_tokens"]
    del body["prompt_logprobs"]
    first, *rest = server.events("/v1/chat/completions", body)
    assert first["prompt_token_ids"] == tokens
    assert [t for e in rest for t in e["choices"][0]["token_ids"]] == answer["choices"][0]["token_ids"]


def test_template_of_a_request_needs_trust(server):
    body = {**GREEDY, "chat_template": "{{ messages[0]['content'] }}"}
    reply = server.post("/v1/chat/completions", body)
    assert (reply.status, reply.error()["param"]) == (400, "chat_template")
    with running_server(trust_request_chat_template=True) as trusting:
        answer = trusting.post("/v1/chat/completions", body).json()
        tokens = trusting.post("/tokenize", {"prompt": MESSAGES[0]["content"], "add_special_tokens": False}).json()
        assert answer["usage"]["prompt_tokens"] == tokens["count"]
        reply = trusting.post("/v1/chat/completions", {**body, "chat_template": "{% broken"})
        assert (reply.status, reply.error()["param"]) == (400, "chat_template")


def test_tokenize_and_detokenize(server):
    text = "Grüße, 世界! 🙂\n  if x:"
    answer = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == server.engine.max_model_len
    assert server.post("/detokenize", {"tokens": answer["tokens"], "skip_special_tokens": True}).json() == {
        "prompt": text
    }
    with_prompt = server.post("/tokenize", {"messages": MESSAGES}).json()["tokens"]
    without = server.post("/tokenize", {"messages": MESSAGES, "add_generation_prompt": False}).json()["tokens"]
    assert with_prompt[: len(without)] == without
    assert len(with_prompt) > len(without)


def test_models(client, server):
    (model,) = client.models.list().data
    assert model.id == MODEL
    assert model.max_model_len == server.engine.max_model_len
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("an/other")


def test_no_alternatives_of_no_logprobs_may_be_asked_for(server):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "logprobs": False, "top_logprobs": 0}
    assert server.post("/v1/chat/completions", body).json()["choices"][0]["logprobs"] is None

"""POST /v1/completions, through the openai client where it can say it."""

import pytest

from .harness import MODEL, running_server

PROMPT = "def add(a, b):\n"
GREEDY = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 24, "ignore_eos": True}


def _tokens(server, text: str) -> list[int]:
    return server.post("/tokenize", {"prompt": text}).json()["tokens"]


def test_whole_answer(client, server):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=5)
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.model == MODEL
    assert answer.system_fingerprint.startswith("rvllm-")
    (choice,) = answer.choices
    assert choice.index == 0
    assert choice.finish_reason in ("length", "stop")
    usage = answer.usage
    assert usage.prompt_tokens == len(_tokens(server, PROMPT))
    assert 1 <= usage.completion_tokens <= 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_max_tokens_is_16_when_nobody_says(server):
    answer = server.post("/v1/completions", {"prompt": PROMPT, "ignore_eos": True}).json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_greedy_stream_equals_the_whole_answer(server):
    whole = server.post("/v1/completions", {**GREEDY, "return_token_ids": True}).json()["choices"][0]
    for extra in ({}, {"return_token_ids": True}, {"logprobs": 2}, {"stream_options": {"include_usage": True}}):
        events = server.events("/v1/completions", {**GREEDY, **extra})
        choices = [e["choices"][0] for e in events if e["choices"]]
        assert "".join(c["text"] for c in choices) == whole["text"]
        assert [c["finish_reason"] for c in choices[:-1]] == [None] * (len(choices) - 1)
        assert choices[-1]["finish_reason"] == whole["finish_reason"]
        assert len({e["id"] for e in events}) == 1
    ids = [
        t
        for e in server.events("/v1/completions", {**GREEDY, "return_token_ids": True})
        for c in e["choices"]
        for t in c["token_ids"]
    ]
    assert ids == whole["token_ids"]


def test_all_forms_of_a_prompt(server):
    ids = _tokens(server, PROMPT)
    texts = []
    for prompt in (PROMPT, [PROMPT], ids, [ids]):
        answer = server.post("/v1/completions", {**GREEDY, "prompt": prompt}).json()
        texts.append([c["text"] for c in answer["choices"]])
        assert answer["usage"]["prompt_tokens"] == len(ids)
    assert texts.count(texts[0]) == 4


def test_several_prompts_and_choices_are_numbered_by_prompt(server):
    body = {**GREEDY, "prompt": [PROMPT, "Hello"], "n": 2, "max_tokens": 6}
    answer = server.post("/v1/completions", body).json()
    assert [c["index"] for c in answer["choices"]] == [0, 1, 2, 3]
    texts = [c["text"] for c in answer["choices"]]
    assert texts[0] == texts[1] != texts[2] == texts[3]
    assert answer["usage"]["completion_tokens"] == 24
    assert answer["usage"]["prompt_tokens"] == len(_tokens(server, PROMPT)) + len(_tokens(server, "Hello"))

    streamed = [""] * 4
    for event in server.events("/v1/completions", body):
        for choice in event["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == texts


def test_n_choices_of_a_seed_differ_and_repeat(client):
    def texts():
        answer = client.completions.create(model=MODEL, prompt=PROMPT, n=3, seed=7, temperature=1.5, max_tokens=20)
        return [c.text for c in answer.choices]

    first = texts()
    assert len(set(first)) > 1
    assert texts() == first


def test_stop_strings(server):
    whole = server.post("/v1/completions", {**GREEDY, "return_token_ids": True}).json()
    text = whole["choices"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    before = text[: text.index(stop)]
    for extra, expected in (({}, before), ({"include_stop_str_in_output": True}, before + stop)):
        body = {**GREEDY, "stop": [stop, "never seen"], **extra}
        answer = server.post("/v1/completions", body).json()
        (choice,) = answer["choices"]
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (expected, "stop", stop)
        assert answer["usage"]["completion_tokens"] <= whole["usage"]["completion_tokens"]
        streamed = [e["choices"][0] for e in server.events("/v1/completions", body)]
        assert "".join(c["text"] for c in streamed) == expected
        assert streamed[-1]["stop_reason"] == stop
    server.wait_idle()


def test_stop_token_ids(server):
    ids = server.post("/v1/completions", {**GREEDY, "return_token_ids": True}).json()["choices"][0]["token_ids"]
    stop = ids[4]
    (choice,) = server.post("/v1/completions", {**GREEDY, "stop_token_ids": [stop], "return_token_ids": True}).json()[
        "choices"
    ]
    assert choice["token_ids"] == ids[: ids.index(stop) + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


def test_logprobs(server):
    (choice,) = server.post("/v1/completions", {**GREEDY, "logprobs": 3}).json()["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert {len(logprobs[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {24}
    for i, token in enumerate(logprobs["tokens"]):
        offset = logprobs["text_offset"][i]
        assert choice["text"][offset : offset + len(token)] == token
        top = logprobs["top_logprobs"][i]
        assert 1 <= len(top) <= 3
        # Greedy: the chosen token is the likeliest.
        assert logprobs["token_logprobs"][i] == top[token] == max(top.values()) <= 0

    pieces = [e["choices"][0]["logprobs"] for e in server.events("/v1/completions", {**GREEDY, "logprobs": 3})]
    for key, values in logprobs.items():
        assert [v for piece in pieces for v in piece[key]] == values


def test_logprobs_zero_gives_only_the_token(server):
    (choice,) = server.post("/v1/completions", {**GREEDY, "logprobs": 0}).json()["choices"]
    assert all(
        list(top) == [token]
        for top, token in zip(choice["logprobs"]["top_logprobs"], choice["logprobs"]["tokens"], strict=True)
    )


def test_tokens_as_ids(server):
    body = {**GREEDY, "logprobs": 1, "return_tokens_as_token_ids": True, "return_token_ids": True}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{t}" for t in choice["token_ids"]]
    assert choice["prompt_token_ids"] == _tokens(server, PROMPT)


def test_echo_of_prompt_and_answer_scores_the_same_as_generating_it(server):
    made = server.post("/v1/completions", {**GREEDY, "logprobs": 1, "return_token_ids": True}).json()["choices"][0]
    whole = made["prompt_token_ids"] + made["token_ids"]
    answer = server.post("/v1/completions", {"prompt": whole, "echo": True, "max_tokens": 0, "logprobs": 1}).json()
    (choice,) = answer["choices"]
    assert choice["text"] == PROMPT + made["text"]
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(whole)
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    n = len(made["token_ids"])
    assert logprobs["token_logprobs"][-n:] == pytest.approx(made["logprobs"]["token_logprobs"], abs=1e-3)


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_streamed_echo_equals_the_whole_one(server, max_tokens):
    body = {**GREEDY, "echo": True, "max_tokens": max_tokens, "logprobs": 2}
    (whole,) = server.post("/v1/completions", body).json()["choices"]
    assert whole["text"].startswith(PROMPT)
    streamed = [e["choices"][0] for e in server.events("/v1/completions", body)]
    assert "".join(c["text"] for c in streamed) == whole["text"]
    for key, values in whole["logprobs"].items():
        assert [v for c in streamed for v in c["logprobs"][key]] == values
    assert streamed[-1]["finish_reason"] == "length"


def test_prompt_logprobs(server):
    body = {**GREEDY, "prompt_logprobs": 2, "return_token_ids": True}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    entries = choice["prompt_logprobs"]
    assert entries[0] is None
    assert len(entries) == len(choice["prompt_token_ids"])
    for token, entry in zip(choice["prompt_token_ids"][1:], entries[1:], strict=True):
        assert str(token) in entry
        assert {e["rank"] for e in entry.values()} >= {1, 2} - ({2} if len(entry) < 2 else set())
        for other in entry.values():
            assert set(other) == {"logprob", "rank", "decoded_token"}


def test_usage_in_streams(server):
    body = {**GREEDY, "max_tokens": 6, "stream_options": {"include_usage": True}}
    *events, last = server.events("/v1/completions", body)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert all(e["usage"] is None for e in events)
    assert all("usage" not in e for e in server.events("/v1/completions", {**GREEDY, "max_tokens": 6}))

    body["stream_options"]["continuous_usage_stats"] = True
    counts = [e["usage"]["completion_tokens"] for e in server.events("/v1/completions", body)]
    assert counts == sorted(counts)
    assert counts[-1] == 6


def test_cached_tokens_and_salt(server):
    prompt = [i % 50 + 10 for i in range(100)]

    def cached(salt):
        usage = server.post("/v1/completions", {"prompt": prompt, "max_tokens": 1, "cache_salt": salt}).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert cached("one") == 0
    assert cached("one") >= 80
    assert cached("two") == 0


def test_truncated_prompts_keep_their_end(server):
    ids = _tokens(server, PROMPT * 4)
    body = {**GREEDY, "prompt": ids, "truncate_prompt_tokens": 5, "return_token_ids": True, "echo": True}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    assert choice["prompt_token_ids"] == ids[-5:]
    limit = server.engine.max_model_len
    body = {"prompt": [7] * (2 * limit), "truncate_prompt_tokens": -1, "max_tokens": 3, "ignore_eos": True}
    usage = server.post("/v1/completions", body).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (limit - 3, 3)


def test_controls_on_tokens(server):
    def ids(**extra):
        answer = server.post("/v1/completions", {**GREEDY, "return_token_ids": True, **extra})
        return answer.json()["choices"][0]["token_ids"]

    assert set(ids(allowed_token_ids=[40, 41])) <= {40, 41}
    assert set(ids(logit_bias={"42": 100})) == {42}
    banned = ids()[0]
    assert ids(logit_bias={str(banned): -100})[0] != banned


def test_defaults_of_the_model_stand_between_request_and_api(server, monkeypatch):
    monkeypatch.setattr(server.engine, "generation_defaults", {"temperature": 0.0, "max_tokens": 5})
    body = {"prompt": PROMPT, "ignore_eos": True}
    first, second = (server.post("/v1/completions", body).json() for _ in range(2))
    assert first["usage"]["completion_tokens"] == 5
    assert first["choices"][0]["text"] == second["choices"][0]["text"]
    assert server.post("/v1/completions", {**body, "max_tokens": 7}).json()["usage"]["completion_tokens"] == 7


def test_request_ids(server):
    body = {"prompt": PROMPT, "max_tokens": 1}
    assert server.post("/v1/completions", {**body, "request_id": "mine"}).json()["id"] == "cmpl-mine"
    reply = server.post("/v1/completions", body, {"X-Request-Id": "theirs"})
    assert reply.json()["id"] == "cmpl-theirs"
    assert reply.headers["X-Request-Id"] == "theirs"


def test_metrics_of_a_request_when_the_server_is_asked_for_them():
    body = {**GREEDY, "max_tokens": 5}
    with running_server(enable_per_request_metrics=True) as server:
        metrics = server.post("/v1/completions", body).json()["metrics"]
        assert set(metrics) == {
            "time_to_first_token_ms",
            "generation_time_ms",
            "queue_time_ms",
            "mean_itl_ms",
            "tokens_per_second",
        }
        assert all(v >= 0 for v in metrics.values())
        *_, last = server.events("/v1/completions", body)
        assert set(last["metrics"]) == set(metrics)
        *events, last = server.events("/v1/completions", {**body, "stream_options": {"include_usage": True}})
        assert set(last["metrics"]) == set(metrics)
        assert not any("metrics" in e for e in events)

"""Clients that leave, clients that are slow, too many clients, and clients without the key."""

import concurrent.futures
import json
import time

import openai
import pytest

from rvllm.engine_config import EngineConfig
from rvllm.flags import DEMO_MODEL

from .harness import MODEL, running_server

LONG = {"prompt": "Once", "ignore_eos": True, "temperature": 0}


def _long(server, **extra) -> dict:
    return {**LONG, "max_tokens": server.engine.max_model_len - 64, **extra}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_sequence(server, stream):
    before = server.engine.stats().generation_tokens
    body = _long(server, stream=stream, n=2)
    sock = server.open("/v1/completions", body)
    server.wait_for(lambda: server.engine.stats().n_running == 2)
    assert json.loads(server.request("GET", "/load").body)["server_load"] == 1
    sock.close()
    server.wait_idle()
    assert server.engine.stats().generation_tokens - before < 2 * body["max_tokens"]
    assert json.loads(server.request("GET", "/load").body)["server_load"] == 0


def test_a_client_that_does_not_read_loses_its_request():
    with running_server(max_unsent_bytes=8 << 10) as server:
        # Alternatives make the stream long enough to fill what the kernel buffers.
        n = server.engine.stats().n_blocks * 16 // server.engine.max_model_len
        body = _long(server, stream=True, logprobs=20, n=max(1, min(n, 8)))
        sock = server.open("/v1/completions", body, receive_buffer=4096)
        server.wait_for(lambda: server.engine.stats().n_running > 0)
        server.wait_for(lambda: server.service.n_in_flight == 0, timeout_s=30)
        server.wait_idle()
        assert server.engine.stats().generation_tokens < body["n"] * body["max_tokens"]
        sock.close()
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200


def test_a_full_queue_is_429_with_retry_after():
    config = EngineConfig(model=str(DEMO_MODEL), max_num_seqs=1, max_num_queued_reqs=2)
    with running_server(config) as server:
        body = _long(server, stream=True)
        socks = [server.open("/v1/completions", body)]
        server.wait_for(lambda: server.engine.stats().n_running == 1)
        socks += [server.open("/v1/completions", body) for _ in range(2)]
        server.wait_for(lambda: server.engine.n_unfinished == 3)
        reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert reply.status == 429
        assert reply.error()["type"] == "RateLimitError"
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
        # Several prompts are admitted together or not at all.
        assert server.post("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1}).status == 429
        assert server.engine.n_unfinished == 3
        with pytest.raises(openai.RateLimitError):
            server.openai().completions.create(model=MODEL, prompt="a")
        for sock in socks:
            sock.close()
        server.wait_idle()
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200


def test_the_key_guards_everything_but_health_and_metrics():
    with running_server(api_key=["one", "zwei-é"]) as server:
        body = {"prompt": "a", "max_tokens": 1}
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "one"},
            {"Authorization": "Basic one"},
        ):
            reply = server.post("/v1/completions", body, headers)
            assert (reply.status, reply.error()["type"]) == (401, "AuthenticationError")
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        for method, path in (("GET", "/v1/models"), ("POST", "/tokenize"), ("GET", "/load"), ("GET", "/v1/nothing")):
            assert server.request(method, path).status == 401
        for path in ("/health", "/ping", "/version", "/metrics"):
            assert server.request("GET", path).status == 200
        for key in ("one", "zwei-é"):
            headers = {"Authorization": f"Bearer {key}".encode()}
            assert server.post("/v1/completions", body, headers).status == 200
        with pytest.raises(openai.AuthenticationError):
            server.openai().models.list()


def test_streams_of_any_script_equal_whole_answers(server):
    """Random tokens make broken and mixed characters; what is streamed must add up to the text all the same."""
    for seed in range(6):
        body = {"prompt": "x", "temperature": 5.0, "seed": seed, "max_tokens": 100, "ignore_eos": True}
        whole = server.post("/v1/completions", {**body, "return_token_ids": True}).json()["choices"][0]
        pieces = [e["choices"][0]["text"] for e in server.events("/v1/completions", body)]
        assert "".join(pieces) == whole["text"]
        tokens = {"tokens": whole["token_ids"], "skip_special_tokens": True}
        assert server.post("/detokenize", tokens).json()["prompt"] == whole["text"]


def test_characters_of_several_tokens_arrive_whole(server):
    text = "🙂漢é"
    ids = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert len(ids) > len(text)
    body = {"prompt": "x", "allowed_token_ids": ids, "temperature": 3.0, "seed": 1, "max_tokens": 200}
    pieces = [e["choices"][0]["text"] for e in server.events("/v1/completions", {**body, "ignore_eos": True})]
    whole = server.post("/v1/completions", {**body, "ignore_eos": True}).json()["choices"][0]["text"]
    assert "".join(pieces) == whole


def test_health_answers_at_once_under_load(server):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(server.events, "/v1/completions", _long(server)) for _ in range(8)]
        server.wait_for(lambda: server.engine.stats().n_running > 4)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            assert server.request("GET", "/health").status == 200
            times.append(time.perf_counter() - start)
        for r in running:
            r.result()
    assert sorted(times)[10] < 0.1

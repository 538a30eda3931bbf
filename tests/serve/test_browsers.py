"""Pages in browsers: what a server must say so that a browser lets a page of another origin use it (CORS)."""

import pytest

from .harness import running_server

PAGE = {"Origin": "https://page.example"}
ASKS = PAGE | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}
ALLOWED = "Access-Control-Allow-Origin"


@pytest.mark.parametrize("body", [{"prompt": "a", "max_tokens": 1}, {"prompt": "a", "stream": True}, {"prompt": 5}])
def test_any_page_may_read_answers_streams_and_errors(server, body):
    assert server.post("/v1/completions", body, PAGE).headers[ALLOWED] == "*"
    assert ALLOWED not in server.post("/v1/completions", body).headers


def test_a_browser_that_asks_first_is_answered(server):
    reply = server.request("OPTIONS", "/v1/chat/completions", headers=ASKS)
    assert reply.status == 204
    assert reply.headers[ALLOWED] == "*"
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    assert reply.headers["Access-Control-Allow-Headers"] == ASKS["Access-Control-Request-Headers"]
    assert server.request("OPTIONS", "/v1/chat/completions").status == 405


def test_only_the_origins_of_the_flag_and_no_key_to_ask():
    with running_server(allowed_origins=["https://page.example"], api_key=["k"]) as server:
        assert server.request("OPTIONS", "/v1/models", headers=ASKS).headers[ALLOWED] == "https://page.example"
        reply = server.request("GET", "/v1/models", headers=PAGE)
        assert (reply.status, reply.headers[ALLOWED], reply.headers["Vary"]) == (401, "https://page.example", "Origin")
        assert ALLOWED not in server.request("GET", "/v1/models", headers={"Origin": "https://other.example"}).headers
    with running_server(allowed_origins=[]) as server:
        assert ALLOWED not in server.request("GET", "/v1/models", headers=PAGE).headers
        assert server.request("OPTIONS", "/v1/models", headers=ASKS).status == 405

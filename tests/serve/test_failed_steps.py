"""Logits that are not numbers end the request they belong to, and nothing else."""

import json
import shutil
import struct

import pytest

from rvllm.engine_config import EngineConfig
from rvllm.flags import DEMO_MODEL

from .harness import running_server

BAD_TOKEN = 700


def _poisoned_model(directory):
    """Copy the demo model with untied embeddings and NaN in the row of BAD_TOKEN: only prompts with it are affected."""
    shutil.copytree(DEMO_MODEL, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    file = directory / "model.safetensors"
    raw = file.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + n]), bytearray(raw[8 + n :])
    embed = header["model.embed_tokens.weight"]
    start, end = embed["data_offsets"]
    header["lm_head.weight"] = {**embed, "data_offsets": [len(data), len(data) + end - start]}
    data += data[start:end]
    row = 2 * embed["shape"][1]
    at = start + BAD_TOKEN * row
    data[at : at + row] = b"\xc0\x7f" * (row // 2)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("poisoned") / "model"
    _poisoned_model(directory)
    with running_server(EngineConfig(model=str(directory))) as server:
        yield server


def test_a_whole_answer_is_500(poisoned):
    reply = poisoned.post("/v1/completions", {"prompt": [5, BAD_TOKEN, 6], "max_tokens": 4})
    assert (reply.status, reply.error()["type"]) == (500, "InternalServerError")
    assert "not numbers" in reply.error()["message"]
    poisoned.wait_idle()


def test_a_stream_ends_with_an_error_event(poisoned):
    *_, last = poisoned.events("/v1/completions", {"prompt": [5, BAD_TOKEN, 6], "max_tokens": 4})
    assert last["error"]["code"] == 500
    poisoned.wait_idle()


def test_requests_beside_it_are_not_disturbed(poisoned):
    good = {"prompt": "def add(a, b):\n", "temperature": 0, "max_tokens": 60, "ignore_eos": True}
    alone = poisoned.post("/v1/completions", good).json()["choices"][0]["text"]
    sock = poisoned.open("/v1/completions", {**good, "stream": True})
    for _ in range(5):
        assert poisoned.post("/v1/completions", {"prompt": [BAD_TOKEN], "max_tokens": 4}).status == 500
    streamed = b""
    while b"[DONE]" not in streamed:
        streamed += sock.recv(65536)
    sock.close()
    events = [json.loads(e[6:]) for e in streamed.split(b"\n") if e.startswith(b"data: {")]
    assert "".join(e["choices"][0]["text"] for e in events) == alone
    assert poisoned.request("GET", "/health").status == 200

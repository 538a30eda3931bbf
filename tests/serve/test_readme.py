"""README.md says nothing that does not work: its examples run, its commands parse."""

import json
import re
import shlex
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvllm.cli import _parser
from rvllm.flags import DEMO_MODEL

from .process import process

README = (Path(__file__).parents[2] / "README.md").read_text()
URL = "http://127.0.0.1:8000"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process("--host", "127.0.0.1", "--port", "0") as server:
        yield server.wait_ready()


def test_the_curl_example_is_answered(url):
    (curl,) = (b for b in _blocks("sh") if b.startswith("curl "))
    _, address, *rest = shlex.split(curl)
    assert address.startswith(URL)
    body = json.loads(rest[rest.index("-d") + 1])
    request = urllib.request.Request(address.replace(URL, url), json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        assert answer.read().endswith(b"data: [DONE]\n\n")


def test_the_python_examples_run(url, capsys):
    blocks = _blocks("python")
    assert len(blocks) == 3
    for block in blocks:
        exec(block.replace(URL, url).replace("path/to/model", str(DEMO_MODEL)), {})
    assert "12" in capsys.readouterr().out


def test_the_commands_exist():
    commands = re.findall(r"`(rvllm [^`]+)`", README) + re.findall(
        r"^(rvllm .+)$", "\n".join(_blocks("sh")), re.MULTILINE
    )
    assert len(commands) >= 6
    for command in commands:
        argv = shlex.split(re.sub(r"\[(.*?)\]", r"\1", command))[1:]  # optional parts too
        if argv[0] != "VERB":
            assert _parser().parse_args(argv).run

"""What is printed while a model loads and while the server works."""

import io
from dataclasses import replace

from rvllm import progress
from rvllm.progress import ProgressBar
from rvllm.serve.statsline import stats_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _clock(monkeypatch, step_s: float):
    now = [0.0]

    def monotonic() -> float:
        now[0] += step_s
        return now[0]

    monkeypatch.setattr(progress.time, "monotonic", monotonic)


def test_a_quick_load_prints_nothing(monkeypatch):
    for out in (io.StringIO(), Terminal()):
        _clock(monkeypatch, 0.04)
        with ProgressBar(out) as bar:
            for i in range(10):
                bar("loading weights", i, 10)
        assert out.getvalue() == ""


def test_a_slow_load_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere(monkeypatch):
    _clock(monkeypatch, 1.0)
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        with ProgressBar(out) as bar:
            for i in range(21):
                bar("loading weights", i * 10**6, 20 * 10**6)
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert drawn[1].startswith("loading weights [....")
    assert " 100% 20 of 20 MB" in drawn[-2]
    assert drawn[-1] == ""  # erased in the end
    lines = file.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    assert "\x1b" not in file.getvalue()


def test_stats_line(server):
    before = server.engine.stats()
    now = replace(
        before,
        n_running=3,
        n_waiting=2,
        kv_usage=0.256,
        prompt_tokens=before.prompt_tokens + 1000,
        generation_tokens=before.generation_tokens + 500,
        prefix_queries=before.prefix_queries + 200,
        prefix_hits=before.prefix_hits + 50,
    )
    assert stats_line(before, now, 10.0) == (
        "running 3, waiting 2, prompt 100.0 tokens/s, generation 50.0 tokens/s, KV cache 25.6%, prefix hits 25.0%"
    )
    assert stats_line(now, now, 10.0).endswith("prefix hits 0.0%")

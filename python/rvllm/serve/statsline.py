"""The line about the engine that the server logs while it works."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvllm.engine import Engine, EngineStats

log = logging.getLogger("rvllm.serve")

INTERVAL_S = 10.0


def stats_line(before: EngineStats, now: EngineStats, seconds: float) -> str:
    """Describe the interval between two readings."""
    queries = now.prefix_queries - before.prefix_queries
    hits = now.prefix_hits - before.prefix_hits
    return (
        f"running {now.n_running}, waiting {now.n_waiting}, "
        f"prompt {(now.prompt_tokens - before.prompt_tokens) / seconds:.1f} tokens/s, "
        f"generation {(now.generation_tokens - before.generation_tokens) / seconds:.1f} tokens/s, "
        f"KV cache {now.kv_usage:.1%}, prefix hits {hits / queries if queries else 0.0:.1%}"
    )


async def log_stats(engine: Engine) -> None:
    """Log a line per interval in which the engine made a step, and one after the last of them."""
    before, since = engine.stats(), time.monotonic()
    was_busy = False
    while True:
        await asyncio.sleep(INTERVAL_S)
        stats, now = engine.stats(), time.monotonic()
        busy = stats.steps != before.steps
        if busy or was_busy:
            log.info(stats_line(before, stats, now - since))
        before, since, was_busy = stats, now, busy

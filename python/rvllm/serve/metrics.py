"""Prometheus metrics under the reference's names.

Gauges and counters are read from the engine when somebody scrapes. Histograms are fed per update and per finished
request, in plain lists: prometheus_client only writes the text.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rvllm.request import Chunk

if TYPE_CHECKING:
    from rvllm.engine import Engine
    from rvllm.handle import RequestHandle

TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0),
    *(80.0, 160.0, 640.0, 2560.0),
)
# The reference starts at 0.01, too coarse for a small model or a fast GPU; its own bounds are all kept.
ITL_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
PHASE_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
N_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0)


def token_buckets(max_model_len: int) -> tuple[float, ...]:
    """Return the series 1, 2, 5, 10, 20, ... up to `max_model_len`."""
    out: list[float] = []
    decade = 1
    while True:
        for m in (1, 2, 5):
            if m * decade > max_model_len:
                return tuple(out)
            out.append(float(m * decade))
        decade *= 10


class Histogram:
    """Counts of values by upper bound, plus their sum."""

    __slots__ = ("bounds", "counts", "help", "name", "sum")

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]):
        self.name = name
        self.help = help
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """Count `value` n times."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.sum += value * n


class Metrics:
    """All metrics of a server with one engine."""

    def __init__(self, engine: Engine, model_name: str):
        self._engine = engine
        self._model_name = model_name
        lengths = token_buckets(engine.max_model_len)
        self._histograms: list[Histogram] = []
        add = self._add
        self.ttft = add("time_to_first_token_seconds", "Arrival to first token.", TTFT_BUCKETS)
        self.itl = add("inter_token_latency_seconds", "Between two tokens of a choice.", ITL_BUCKETS)
        self.tpot = add(
            "request_time_per_output_token_seconds", "First to last token, per token after the first.", ITL_BUCKETS
        )
        self.e2e = add("e2e_request_latency_seconds", "Arrival to last token.", PHASE_BUCKETS)
        self.queue = add("request_queue_time_seconds", "Arrival to first scheduled.", PHASE_BUCKETS)
        self.prefill = add("request_prefill_time_seconds", "First scheduled to first token.", PHASE_BUCKETS)
        self.decode = add("request_decode_time_seconds", "First to last token.", PHASE_BUCKETS)
        self.inference = add("request_inference_time_seconds", "First scheduled to last token.", PHASE_BUCKETS)
        self.prompt_tokens = add("request_prompt_tokens", "Prompt tokens of a request.", lengths)
        self.generation_tokens = add("request_generation_tokens", "Output tokens of a request.", lengths)
        self.max_generation_tokens = add(
            "request_max_num_generation_tokens", "Output tokens of a request's longest choice.", lengths
        )
        self.params_n = add("request_params_n", "Parameter n of a request.", N_BUCKETS)
        self.params_max_tokens = add("request_params_max_tokens", "Parameter max_tokens of a request.", lengths)
        self._finished: Counter[str] = Counter({"stop": 0, "length": 0, "abort": 0})
        self._prompt_tokens_cached = 0
        self._recent_queue_s = 0.0

    def _add(self, name: str, help: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"vllm:{name}", help, bounds)
        self._histograms.append(histogram)
        return histogram

    # ---- feeding -------------------------------------------------------------------------------------

    def update(self, handle: RequestHandle, chunks: list[Chunk], before: float | None) -> float | None:
        """Count one update of a request; `before` is what the previous call for it returned."""
        now = handle.last_token
        if now is None or now == before:
            return before
        n_tokens = steps = len(chunks[0].token_ids)
        for chunk in chunks[1:]:
            n = len(chunk.token_ids)
            n_tokens += n
            steps = max(steps, n)
        if before is None:
            before = handle.first_token or now
            self.ttft.observe(before - handle.arrival)
            n_tokens -= len(chunks)
            steps -= 1
        if steps > 0:
            self.itl.observe((now - before) / steps, n_tokens)
        return now

    def finished(self, handle: RequestHandle, max_tokens: int, n_tokens: list[int], reasons: list[str | None]) -> None:
        """Count a request that ended; None among `reasons` is a choice that was cancelled."""
        self._finished.update(reason or "abort" for reason in reasons)
        self.prompt_tokens.observe(handle.n_prompt)
        self.params_n.observe(len(n_tokens))
        self.params_max_tokens.observe(max_tokens)
        self.generation_tokens.observe(sum(n_tokens))
        self.max_generation_tokens.observe(max(n_tokens))
        self._prompt_tokens_cached += handle.n_cached
        if handle.scheduled is None:
            return
        queued = handle.scheduled - handle.arrival
        self.queue.observe(queued)
        self._recent_queue_s += 0.1 * (queued - self._recent_queue_s)
        if handle.first_token is None or handle.last_token is None:
            return
        decode = handle.last_token - handle.first_token
        self.prefill.observe(handle.first_token - handle.scheduled)
        self.decode.observe(decode)
        self.inference.observe(handle.last_token - handle.scheduled)
        self.e2e.observe(handle.last_token - handle.arrival)
        if max(n_tokens) > 1:
            self.tpot.observe(decode / (max(n_tokens) - 1))

    def retry_after_s(self) -> int:
        """Guess when the queue will have moved: what recent requests waited, 1 to 60 seconds."""
        return min(60, max(1, math.ceil(self._recent_queue_s)))

    # ---- writing -------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """Return the text exposition format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator:
        """Yield metric families; prometheus_client calls this."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
        from prometheus_client.utils import floatToGoString

        stats = self._engine.stats()
        label, model = ["model_name"], [self._model_name]

        def gauge(name: str, help: str, value: float):
            family = GaugeMetricFamily(name, help, labels=label)
            family.add_metric(model, value)
            return family

        def counter(name: str, help: str, value: float):
            family = CounterMetricFamily(name, help, labels=label)
            family.add_metric(model, value)
            return family

        def histogram(name: str, help: str, bounds, counts, total: float):
            family = HistogramMetricFamily(name, help, labels=label)
            buckets, running = [], 0
            for bound, count in zip((*bounds, math.inf), counts, strict=True):
                running += count
                buckets.append((floatToGoString(bound), running))
            family.add_metric(model, buckets, sum_value=total)
            return family

        yield gauge("vllm:num_requests_running", "Sequences in the running batch.", stats.n_running)
        yield gauge("vllm:num_requests_waiting", "Sequences waiting to run.", stats.n_waiting)
        yield gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", stats.kv_usage)
        config = self._engine.config
        info = {
            "block_size": str(stats.block_size),
            "num_gpu_blocks": str(stats.n_blocks),
            "num_cpu_blocks": str(config.num_cpu_blocks),
            "cache_dtype": self._engine.loaded.sizes.kv_cache_dtype,
            "enable_prefix_caching": str(config.enable_prefix_caching),
        }
        cache = GaugeMetricFamily("vllm:cache_config_info", "The KV cache, as labels.", labels=[*label, *info])
        cache.add_metric([*model, *info.values()], 1)
        yield cache
        yield counter("vllm:prompt_tokens", "Prompt tokens processed.", stats.prompt_tokens)
        yield counter("vllm:generation_tokens", "Tokens generated.", stats.generation_tokens)
        yield counter("vllm:num_preemptions", "Preemptions.", stats.preemptions)
        yield counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", stats.prefix_queries)
        yield counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", stats.prefix_hits)
        yield counter("rvllm:cpu_prefix_cache_hits", "Prompt tokens found in the second tier.", stats.cpu_prefix_hits)
        yield counter("rvllm:blocks_swapped_out", "KV blocks moved to the second tier.", stats.blocks_swapped_out)
        yield counter("rvllm:blocks_swapped_in", "KV blocks moved back from it.", stats.blocks_swapped_in)
        yield counter(
            "vllm:prompt_tokens_cached", "Prompt tokens of ended requests that were cached.", self._prompt_tokens_cached
        )
        finished = CounterMetricFamily(
            "vllm:request_success", "Ended choices by reason.", labels=[*label, "finished_reason"]
        )
        for reason, count in self._finished.items():
            finished.add_metric([*model, reason], count)
        yield finished
        for h in self._histograms:
            yield histogram(h.name, h.help, h.bounds, h.counts, h.sum)
        counts, total = self._engine.histograms()["step_tokens"]
        yield histogram("vllm:iteration_tokens_total", "Tokens per step.", *_powers(counts, 0, 14, 1.0), total)
        for name, help in (("step_us", "Time of a step."), ("host_us", "Time of a step outside its kernels.")):
            counts, total = self._engine.histograms()[name]
            family = f"rvllm:{name.removesuffix('_us')}_time_seconds"
            yield histogram(family, help, *_powers(counts, 4, 24, 1e-6), total * 1e-6)
        yield counter("rvllm:steps", "Engine steps.", stats.steps)
        yield counter("rvllm:failed_steps", "Steps whose requests failed.", stats.failed_steps)
        yield counter("rvllm:engine_cpu_seconds", "CPU time of the engine thread.", stats.thread_cpu_s)


def _powers(buckets: list[tuple[int, int]], low: int, high: int, unit: float) -> tuple[tuple[float, ...], list[int]]:
    """Return bounds unit * 2**low .. unit * 2**high and the counts between them, of (smallest value, count) buckets.

    A bucket that starts on a bound counts as below it, though it reaches 3% further.
    """
    counts = [0] * (high - low + 2)
    for value, count in buckets:
        counts[min(max((value - 1).bit_length(), low), high + 1) - low] += count
    return tuple(round(unit * 2**i, 9) for i in range(low, high + 1)), counts

"""GET /metrics: names, labels, buckets, and figures that add up."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rvllm.serve.metrics import Histogram, token_buckets

from .harness import MODEL

GAUGES = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info"]
COUNTERS = [
    "prompt_tokens_total",
    "generation_tokens_total",
    "request_success_total",
    "num_preemptions_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "prompt_tokens_cached_total",
]
TTFT = ".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560"
ITL = ".01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80"
PHASES = ".3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680"
HISTOGRAMS = {
    "time_to_first_token_seconds": TTFT,
    "inter_token_latency_seconds": ITL,
    "request_time_per_output_token_seconds": ITL,
    "e2e_request_latency_seconds": PHASES,
    "request_queue_time_seconds": PHASES,
    "request_prefill_time_seconds": PHASES,
    "request_decode_time_seconds": PHASES,
    "request_inference_time_seconds": PHASES,
    "request_prompt_tokens": "1 2 5 10 20 50 100",
    "request_generation_tokens": "1 2 5 10 20 50 100",
    "request_max_num_generation_tokens": "1 2 5 10 20 50 100",
    "request_params_n": "1 2 5 10 20",
    "request_params_max_tokens": "1 2 5 10 20 50 100",
    "iteration_tokens_total": "1 8 16 32 64 128 256 512 1024",
}


@pytest.fixture
def scrape(server):
    def read() -> dict[str, dict]:
        reply = server.request("GET", "/metrics")
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        samples = {}
        for family in text_string_to_metric_families(reply.body.decode()):
            for s in family.samples:
                assert s.labels["model_name"] == MODEL
                key = tuple(sorted((k, v) for k, v in s.labels.items() if k != "model_name"))
                samples.setdefault(s.name, {})[key] = s.value
        return samples

    return read


def test_names_labels_and_buckets(scrape):
    samples = scrape()
    for name in GAUGES + COUNTERS:
        assert f"vllm:{name}" in samples
    reasons = {dict(key)["finished_reason"] for key in samples["vllm:request_success_total"]}
    assert {"stop", "length", "abort"} <= reasons
    for name, bounds in HISTOGRAMS.items():
        buckets = samples[f"vllm:{name}_bucket"]
        found = {float(dict(key)["le"]) for key in buckets}
        assert {float(b) for b in bounds.split()} | {float("inf")} <= found, name
        ordered = [v for _, v in sorted((float(dict(k)["le"]), v) for k, v in buckets.items())]
        assert ordered == sorted(ordered)
        assert samples[f"vllm:{name}_count"][()] == ordered[-1]
        assert f"vllm:{name}_sum" in samples
    assert "rvllm:step_time_seconds_count" in samples
    for name in ("cpu_prefix_cache_hits", "blocks_swapped_out", "blocks_swapped_in"):
        assert samples[f"rvllm:{name}_total"] == {(): 0}  # this server has no second tier


@pytest.mark.parametrize("stream", [True, False])
def test_figures_add_up(server, scrape, stream):
    server.wait_idle()
    before = scrape()
    body = {"prompt": [7, 8, 9], "n": 2, "max_tokens": 5, "ignore_eos": True, "stream": stream}
    assert server.post("/v1/completions", body).status == 200
    server.wait_idle()
    after = scrape()

    def grown(name: str, key=()) -> float:
        return after[name][key] - before[name][key]

    assert grown("vllm:generation_tokens_total") == 10
    assert grown("vllm:request_success_total", (("finished_reason", "length"),)) == 2
    for name in HISTOGRAMS.keys() - {"inter_token_latency_seconds", "iteration_tokens_total"}:
        assert grown(f"vllm:{name}_count") == 1, name
    assert grown("vllm:inter_token_latency_seconds_count") == 8
    assert grown("vllm:request_prompt_tokens_sum") == 3
    assert grown("vllm:request_generation_tokens_sum") == 10
    assert grown("vllm:request_max_num_generation_tokens_sum") == 5
    assert grown("vllm:request_params_n_sum") == 2
    assert grown("vllm:request_params_max_tokens_sum") == 5
    assert grown("vllm:iteration_tokens_total_sum") >= 3 + 8
    parts = grown("vllm:request_queue_time_seconds_sum") + grown("vllm:request_inference_time_seconds_sum")
    assert parts == pytest.approx(grown("vllm:e2e_request_latency_seconds_sum"), abs=1e-4)
    decode = grown("vllm:request_decode_time_seconds_sum")
    assert grown("vllm:inter_token_latency_seconds_sum") == pytest.approx(2 * decode, abs=1e-4)
    for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting"):
        assert after[gauge][()] == 0


def test_cancelled_requests_count_as_aborted(server, scrape):
    before = scrape()["vllm:request_success_total"][(("finished_reason", "abort"),)]
    limit = server.engine.max_model_len
    sock = server.open("/v1/completions", {"prompt": "a", "max_tokens": limit - 64, "ignore_eos": True})
    server.wait_for(lambda: server.engine.stats().n_running == 1)
    sock.close()
    server.wait_idle()
    server.wait_for(lambda: scrape()["vllm:request_success_total"][(("finished_reason", "abort"),)] == before + 1)


def test_histogram_counts_a_value_on_a_bound_below_it():
    histogram = Histogram("x", "", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    histogram.observe(1.5, 10)
    assert histogram.counts == [2, 12, 1]
    assert histogram.sum == 23.0


def test_token_buckets():
    assert token_buckets(100) == (1, 2, 5, 10, 20, 50, 100)
    assert token_buckets(99)[-1] == 50

"""Sizes and the memory table: what is resolved, what is refused and with which advice; allocation keeps to it."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

import tiny
from rvllm._native.device import Device
from rvllm._native.plan import NativePlan
from rvllm.engine_config import EngineConfig
from rvllm.errors import CapacityError, ConfigError
from rvllm.loader import plan_text
from rvllm.memory import GIB, format_bytes, process_bytes, resolve
from rvllm.models import read_model_config, trace
from rvllm.plan.fusion import fuse

MIB = 1 << 20
BIG = tiny.LLAMA | {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 30000,
    "dtype": "bfloat16",
    "max_position_embeddings": 8192,
}
BLOCK = 2 * 3 * 2 * 16 * 16 * 4  # bytes of a KV block of tiny.LLAMA: k and v, layers, heads, head_dim, tokens, f32


@pytest.fixture
def planned(tmp_path, monkeypatch):
    monkeypatch.setattr("rvllm.memory.process_bytes", lambda: 30 * MIB)

    def planned(model=None, **flags):
        config = EngineConfig(model=tiny.write_config(tmp_path, tiny.LLAMA | (model or {})), **flags)
        model = read_model_config(config.model)
        plan = fuse(trace(model, "f32"))
        return plan, *resolve(config, model, plan, NativePlan(plan), Device("cpu", 1), "f32", "f32")

    return planned


def test_defaults(planned):
    _, s, table = planned()
    assert (s.max_num_seqs, s.max_num_batched_tokens, s.max_prefill_chunk, s.max_model_len) == (64, 512, 512, 256)
    assert s.num_blocks == 64 * 256 // 16
    assert table.bytes_of("KV cache") == s.num_blocks * BLOCK
    assert s.notes == ()


def test_flags_are_obeyed(planned):
    _, s, _ = planned(max_model_len=100, max_num_seqs=3, max_num_batched_tokens=40, max_prefill_chunk=20, num_blocks=9)
    assert (s.max_model_len, s.max_num_seqs, s.max_num_batched_tokens) == (100, 3, 40)
    assert (s.max_prefill_chunk, s.num_blocks) == (20, 9)
    assert s.limits().max_table_entries == 3 * 7


def test_unset_sizes_follow_the_set_ones(planned):
    assert planned(max_num_seqs=1000)[1].max_num_batched_tokens == 1000
    assert planned(max_num_batched_tokens=16)[1].max_num_seqs == 16


def test_budget_is_spent_on_blocks_and_kept(planned):
    _, s, table = planned(memory=48 * MIB)
    assert 48 * MIB - BLOCK < table.total <= 48 * MIB
    _, larger, _ = planned(memory=64 * MIB)
    assert larger.num_blocks - s.num_blocks in (16 * MIB // BLOCK, 16 * MIB // BLOCK + 1)


def test_unset_length_is_capped_to_the_cache_and_said(planned):
    _, s, _ = planned({"max_position_embeddings": 100_000}, num_blocks=10)
    assert s.max_model_len == 160
    assert s.notes == ("max-model-len is 160, not the model's 100000: that is what the KV cache holds",)


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"max_model_len": 257}, ConfigError, "--max-model-len 257 is above the model's 256 positions"),
        ({"max_model_len": 1}, ConfigError, "--max-model-len must be at least 2"),
        ({"num_blocks": 1, "block_size": 1}, CapacityError, "a KV cache of one token holds no answer"),
        ({"max_num_seqs": 10**9}, CapacityError, "more blocks than a step can name"),
        ({"max_num_batched_tokens": 2**31 - 1}, CapacityError, "lower --max-num-batched-tokens"),
        ({"max_num_batched_tokens": 2**31}, ConfigError, "--max-num-batched-tokens must be below 2147483648"),
        ({"max_num_queued_reqs": 10**30}, ConfigError, "--max-num-queued-reqs must be below 2147483648"),
        ({"block_size": 2**40}, ConfigError, "--block-size must be below 2147483648"),
        ({"scheduling_policy": "random"}, ConfigError, "--scheduling-policy must be fcfs or priority, not random"),
        ({"max_logprobs": 10**9}, ConfigError, "--max-logprobs must be 0 to the"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, ConfigError, "8 is below --max-num-seqs 9"),
        ({"max_prefill_chunk": 600}, ConfigError, "--max-prefill-chunk 600 is above --max-num-batched-tokens 512"),
        ({"max_num_seqs": 0}, ConfigError, "--max-num-seqs must be at least 1, not 0"),
        ({"block_size": 12}, ConfigError, "--block-size must be a power of two, not 12"),
        ({"num_blocks": 0}, ConfigError, "--num-blocks must be at least 1, not 0"),
        ({"memory": MIB // 2}, CapacityError, "512.00 KiB are allowed by --memory: raise --memory"),
        ({"memory": 40 * MIB, "num_blocks": 10_000}, CapacityError, "are allowed by --memory: at most"),
        ({"num_blocks": 10**9}, CapacityError, "are available: at most"),
        ({"num_cpu_blocks": -1}, ConfigError, "--num-cpu-blocks must be at least 0, not -1"),
        (
            {"num_cpu_blocks": 8, "enable_prefix_caching": False},
            ConfigError,
            "--num-cpu-blocks 8 needs the prefix cache",
        ),
        ({"num_cpu_blocks": 10**9}, CapacityError, "are available: at most"),
        ({"num_blocks": 4, "max_model_len": 100}, CapacityError, "raise --num-blocks or ask for at most 64 tokens"),
    ],
)
def test_refused_with_advice(planned, flags, error, words):
    with pytest.raises(error) as e:
        planned(**flags)
    assert words in str(e.value)


def test_at_most_what_it_says_fits(planned):
    """The advice of an error is true: with it, the plan fits."""
    with pytest.raises(CapacityError) as e:
        planned(memory=48 * MIB, num_blocks=10_000)
    fits = int(re.search(r"at most (\d+) blocks", str(e.value))[1])
    assert planned(memory=48 * MIB, num_blocks=fits)[1].num_blocks == fits
    with pytest.raises(CapacityError):
        planned(memory=48 * MIB, num_blocks=fits + 1)


def test_allocation_keeps_to_the_table(planned):
    plan, s, table = planned(max_num_seqs=4, num_blocks=32, num_cpu_blocks=5)
    taken = tiny.bind(plan, s).memory_bytes()
    assert taken["host_kv_cache"] == table.bytes_of("host KV cache") == 5 * BLOCK
    assert taken["weights"] == table.bytes_of("weights")
    assert taken["kv_cache"] == table.bytes_of("KV cache")
    assert taken["activations"] == table.bytes_of("activations")
    assert 2 * taken["step_input"] == table.bytes_of("step inputs")


def test_a_gpu_that_is_not_here_can_be_planned_for(tmp_path):
    config = EngineConfig(model=tiny.write_config(tmp_path, BIG), device="cuda")
    try:
        text = plan_text(config, gpu_memory=8 << 30, gpu_arch=90)
    except ConfigError as e:
        pytest.skip(str(e))
    assert "device cuda (sm_90, planned for)" in text
    total = re.search(r"(?m)^  total +([0-9,]+)", text[text.index("device memory") :])
    assert 0.89 < int(total[1].replace(",", "")) / (8 << 30) <= 0.9
    assert re.search(r"(?m)^2048 +\[768, 2048\] +linear_", text)
    less = plan_text(replace(config, gpu_memory_utilization=0.5), gpu_memory=8 << 30)
    assert int(re.search(r"num-blocks +(\d+)", less)[1]) < int(re.search(r"num-blocks +(\d+)", text)[1])
    with pytest.raises(CapacityError, match=r"are left by --gpu-memory-reserve-gb 7.5: lower --gpu-memory-reserve-gb"):
        plan_text(replace(config, gpu_memory_reserve_gb=7.5), gpu_memory=8 << 30)
    with pytest.raises(ConfigError, match="contradict each other"):
        plan_text(replace(config, gpu_memory_reserve_gb=1, memory=GIB), gpu_memory=8 << 30)


def test_gpu_flags_are_refused_on_the_cpu(planned, tmp_path):
    with pytest.raises(ConfigError, match="--gpu-memory-utilization needs --device cuda"):
        planned(gpu_memory_utilization=0.5)
    with pytest.raises(ConfigError, match="--gpu-memory needs --device cuda"):
        plan_text(EngineConfig(model=tiny.write_config(tmp_path, BIG)), gpu_memory=8 << 30)


def test_format_bytes():
    assert [format_bytes(n) for n in (5, 2048, 3 * MIB, 5 << 29)] == ["5 B", "2.00 KiB", "3.00 MiB", "2.50 GiB"]


RUN = """
import json, sys
import numpy as np
from rvllm.engine_config import EngineConfig
from rvllm.loader import load
from rvllm.memory import process_bytes

model = load(EngineConfig(model=sys.argv[1], load_format="dummy", num_blocks=512, max_num_seqs=16, threads=2))
n, b = 512, model.plan
for first in range(0, 8192, n):  # fill the cache, with as many wanted rows as there may be
    at = np.arange(first, first + n, dtype=np.int32)
    blocks = np.arange((first + n) // 16, dtype=np.int32)
    ends = np.array([0, n], np.int32)
    rows = np.arange(model.sizes.max_rows, dtype=np.int32)
    b.forward(at % 100, at % 256, at, ends, ends[1:] + first, np.array([0, len(blocks)], np.int32), blocks, rows)
print(json.dumps({"planned": model.memory.total, "taken": process_bytes()}))
"""


@pytest.mark.skipif(process_bytes() == 0, reason="the system does not say what a process takes")
def test_the_process_takes_what_the_plan_says(tmp_path):
    """A model of 200 MB in a process of its own, every block written: within 2%."""
    model = tiny.write_config(tmp_path, BIG)
    run = subprocess.run(
        [sys.executable, "-c", RUN, model], env=tiny.environment(), capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout)
    assert abs(result["taken"] / result["planned"] - 1) < 0.02, result

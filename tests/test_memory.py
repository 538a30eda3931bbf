"""Sizes and the memory table: what is resolved, what is refused and with which advice; allocation keeps to it."""

import re

import pytest
import tiny
from rvllm._native.plan import Device, NativePlan
from rvllm.config import read_model_config
from rvllm.engine_config import EngineConfig
from rvllm.errors import CapacityError, ConfigError
from rvllm.memory import format_bytes, resolve
from rvllm.plan.fusion import fuse
from rvllm.plan.graph import trace

MIB = 1 << 20
BLOCK = 2 * 3 * 2 * 16 * 16 * 4  # bytes of a KV block of tiny.LLAMA: k and v, layers, heads, head_dim, tokens, f32


@pytest.fixture
def planned(tmp_path):
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
    _, s, table = planned(memory=16 * MIB)
    assert 16 * MIB - BLOCK < table.total <= 16 * MIB
    _, larger, _ = planned(memory=32 * MIB)
    assert larger.num_blocks - s.num_blocks in (16 * MIB // BLOCK, 16 * MIB // BLOCK + 1)


def test_unset_length_is_capped_to_the_cache_and_said(planned):
    _, s, _ = planned({"max_position_embeddings": 100_000}, num_blocks=10)
    assert s.max_model_len == 160
    assert s.notes == ("max-model-len is 160, not the model's 100000: that is what the KV cache holds",)


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        ({"max_model_len": 257}, ConfigError, "--max-model-len 257 is above the model's 256 positions"),
        ({"max_model_len": 0}, ConfigError, "--max-model-len must be at least 1"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, ConfigError, "8 is below --max-num-seqs 9"),
        ({"max_prefill_chunk": 600}, ConfigError, "--max-prefill-chunk 600 is above --max-num-batched-tokens 512"),
        ({"max_num_seqs": 0}, ConfigError, "--max-num-seqs must be at least 1, not 0"),
        ({"block_size": 12}, ConfigError, "--block-size must be a power of two, not 12"),
        ({"num_blocks": 0}, ConfigError, "--num-blocks must be at least 1, not 0"),
        ({"memory": MIB // 2}, CapacityError, "512.00 KiB are allowed by --memory: raise --memory"),
        ({"memory": 4 * MIB, "num_blocks": 10_000}, CapacityError, "are allowed by --memory: at most"),
        ({"num_blocks": 10**9}, CapacityError, "are available: at most"),
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
        planned(memory=16 * MIB, num_blocks=10_000)
    fits = int(re.search(r"at most (\d+) blocks", str(e.value))[1])
    assert planned(memory=16 * MIB, num_blocks=fits)[1].num_blocks == fits
    with pytest.raises(CapacityError):
        planned(memory=16 * MIB, num_blocks=fits + 1)


def test_allocation_keeps_to_the_table(planned):
    plan, s, table = planned(max_num_seqs=4, num_blocks=32)
    taken = tiny.bind(plan, s).memory_bytes()
    assert taken["weights"] == table.bytes_of("weights")
    assert taken["kv_cache"] == table.bytes_of("KV cache")
    assert taken["activations"] == table.bytes_of("activations")
    assert 2 * taken["step_input"] == table.bytes_of("step inputs")


def test_format_bytes():
    assert [format_bytes(n) for n in (5, 2048, 3 * MIB, 5 << 29)] == ["5 B", "2.00 KiB", "3.00 MiB", "2.50 GiB"]

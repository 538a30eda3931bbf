"""config.json and generation_config.json: what is read, what is refused, and in which words."""

import json
import logging

import numpy as np
import pytest

from rvllm.config import GenerationDefaults, read_generation_config
from rvllm.errors import ModelError
from rvllm.models import read_model_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 2048,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"]}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def read(tmp_path):
    def read(config, **changes):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        return read_model_config(str(tmp_path))

    return read


def test_defaults_follow_transformers(read):
    c = read(LLAMA)
    assert (c.n_heads, c.n_kv_heads, c.head_dim, c.rms_norm_eps) == (4, 4, 16, 1e-6)
    assert (c.rope.kind, c.rope.theta, c.tie_word_embeddings, c.dtype) == ("default", 10000.0, False, None)
    assert (c.qkv_bias, c.o_bias, c.mlp_bias) == (False, False, False)
    assert c.eos_token_ids == ()


def test_null_counts_as_absent(read):
    c = read(LLAMA, num_key_value_heads=None, head_dim=None, rope_scaling=None, eos_token_id=None, pretraining_tp=None)
    assert c == read(LLAMA)


def test_biases_by_architecture(read):
    llama = read(LLAMA, attention_bias=True, mlp_bias=True)
    assert (llama.qkv_bias, llama.o_bias, llama.mlp_bias) == (True, True, True)
    qwen2 = read(QWEN2)
    assert (qwen2.qkv_bias, qwen2.o_bias, qwen2.mlp_bias) == (True, False, False)
    qwen3 = read(LLAMA, architectures=["Qwen3ForCausalLM"], head_dim=32)
    assert (qwen3.qkv_bias, qwen3.head_dim, qwen3.q_size) == (False, 32, 128)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype(read, key):
    assert read(LLAMA, **{key: "bfloat16"}).dtype == "bf16"


def test_end_ids(read):
    assert read(LLAMA, eos_token_id=2).eos_token_ids == (2,)
    assert read(LLAMA, eos_token_id=[2, 7]).eos_token_ids == (2, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROPE},
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3_ROPE, "type": "llama3"}},
        {"rope_parameters": LLAMA3_ROPE | {"rope_theta": 5e5}},
    ],
)
def test_classic_and_new_rope_keys(read, changes):
    r = read(LLAMA, **changes).rope
    assert (r.kind, r.theta, r.factor, r.low_freq_factor, r.high_freq_factor) == ("llama3", 5e5, 8.0, 1.0, 4.0)
    assert r.original_max_len == 8192


def test_linear_rope_by_its_old_name(read):
    r = read(LLAMA, rope_scaling={"type": "linear", "factor": 4.0}).rope
    np.testing.assert_allclose(r.inv_freq(16), read(LLAMA).rope.inv_freq(16) / 4, rtol=1e-7)


def test_llama3_frequencies(read):
    """High frequencies stay, low ones are divided, and there is a band between them."""
    scaled = read(LLAMA, rope_parameters=LLAMA3_ROPE | {"rope_theta": 5e5}).rope.inv_freq(128).astype(np.float64)
    plain = 5e5 ** -(np.arange(0, 128, 2) / 128)
    wavelen = 2 * np.pi / plain
    np.testing.assert_allclose(scaled[wavelen < 2048], plain[wavelen < 2048], rtol=1e-6)
    np.testing.assert_allclose(scaled[wavelen > 8192], plain[wavelen > 8192] / 8, rtol=1e-6)
    between = (wavelen > 2048) & (wavelen < 8192)
    assert between.any()
    assert np.all((scaled < plain)[between] & (scaled > plain / 8)[between])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "64"}, 'hidden_size must be an integer, not "64"'),
        ({"hidden_size": True}, "hidden_size must be an integer, not true"),
        ({"hidden_size": 64.5}, "hidden_size must be an integer, not 64.5"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be an integer of at least 1, not 0"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"hidden_size": 66}, "hidden_size (66) is not a multiple of num_attention_heads (4)"),
        ({"num_key_value_heads": 3}, "is not a multiple of num_key_value_heads (3)"),
        ({"head_dim": 15}, "head_dim must be even"),
        ({"hidden_act": "gelu"}, 'hidden_act is "gelu", but only "silu" is implemented'),
        ({"pretraining_tp": 2}, "pretraining_tp is 2, but only 1 is implemented"),
        ({"dtype": "float64"}, "dtype is 'float64'; implemented are float32, float16, bfloat16"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is set"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: rope_type is 'yarn'; implemented are"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": 3}, "rope_scaling must be an object, not 3"),
        (
            {"rope_parameters": LLAMA3_ROPE | {"high_freq_factor": 1.0}},
            "high_freq_factor must be above low_freq_factor",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id or a list of them"),
        ({"eos_token_id": -1}, "eos_token_id must be a token id"),
    ],
)
def test_refused_by_name(read, tmp_path, changes, words):
    with pytest.raises(ModelError) as e:
        read(LLAMA, **changes)
    assert words in str(e.value)
    assert str(tmp_path / "config.json") in str(e.value)


def test_sliding_window_only_refused_when_in_use(read):
    off = {"sliding_window": 1024, "use_sliding_window": False, "max_window_layers": 1}
    assert read(QWEN2, **off).n_layers == 2
    assert read(QWEN2, **off | {"use_sliding_window": True, "max_window_layers": 2}).n_layers == 2
    assert read(QWEN2, layer_types=["full_attention"] * 2).n_layers == 2
    with pytest.raises(ModelError, match="use_sliding_window is true for layers 1 to 1"):
        read(QWEN2, **off | {"use_sliding_window": True})
    with pytest.raises(ModelError, match='layer_types has "sliding_attention" for layer 1'):
        read(QWEN2, layer_types=["full_attention", "sliding_attention"])


def test_unknown_keys_are_a_warning(read, caplog):
    with caplog.at_level(logging.WARNING, logger="rvllm"):
        read(LLAMA, my_finetune_note="hello", transformers_version="5.0")
    assert "my_finetune_note" in caplog.text
    assert "transformers_version" not in caplog.text


def test_unknown_architecture_lists_the_supported(read):
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel is not supported; supported are LlamaForCausalLM, Qwen2"):
        read(LLAMA, architectures=["GPT2LMHeadModel"])
    for bad in ([], "LlamaForCausalLM", [1], None):
        with pytest.raises(ModelError, match="architectures must be a list with one of LlamaForCausalLM"):
            read(LLAMA, architectures=bad)


def test_directories(tmp_path):
    with pytest.raises(ModelError, match="is not a model directory"):
        read_model_config(str(tmp_path / "missing"))
    with pytest.raises(ModelError, match=r"download it first: hf download Qwen/Qwen3-0\.6B --local-dir Qwen3-0\.6B$"):
        read_model_config("Qwen/Qwen3-0.6B")
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        read_model_config(str(tmp_path))
    for text, words in (("{", "is not valid JSON"), ("[]", "must hold a JSON object, not a list"), ("\xff", "JSON")):
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ModelError, match=words):
            read_model_config(str(tmp_path))


def test_generation_config(tmp_path):
    assert read_generation_config(str(tmp_path)) == (GenerationDefaults(), ())
    other = tmp_path / "other"
    other.mkdir()
    values = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1, "max_new_tokens": 64}
    (tmp_path / "generation_config.json").write_text(json.dumps(values | {"eos_token_id": [1, 2], "do_sample": True}))
    defaults, eos = read_generation_config(str(tmp_path))
    assert defaults == GenerationDefaults(**values)
    assert eos == (1, 2)
    assert read_generation_config(str(tmp_path), "none") == (GenerationDefaults(), (1, 2))
    with pytest.raises(ModelError, match=r"other: holds no generation_config\.json"):
        read_generation_config(str(tmp_path), str(other))
    (other / "generation_config.json").write_text('{"top_k": "many"}')
    with pytest.raises(ModelError, match='top_k must be an integer, not "many"'):
        read_generation_config(str(tmp_path), str(other))

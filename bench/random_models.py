"""Model shapes that benches run with random weights, and a tokenizer as large as theirs."""

from __future__ import annotations

import json
from pathlib import Path

SHAPES: dict[str, dict] = {
    "32m": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 4096,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "eos_token_id": 2,
    },
    "0.5b": {  # Qwen2.5-0.5B
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "eos_token_id": 151643,
    },
    "7b": {  # Qwen2.5-7B
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "eos_token_id": 151643,
    },
}


def write_model(directory: str | Path, shape: str, *, tokenizer: bool = False) -> str:
    """Write config.json of a shape, and a tokenizer of its vocabulary; return the directory."""
    directory = Path(directory)
    (directory / "config.json").write_text(json.dumps(SHAPES[shape]))
    if tokenizer:
        (directory / "tokenizer.json").write_text(json.dumps(byte_pairs(SHAPES[shape]["vocab_size"])))
    return str(directory)


def byte_pairs(vocab_size: int) -> dict:
    """Return a byte-level BPE tokenizer.json: every byte, then pairs of printable ASCII, then triples, in order.

    Every token behind the first 256 is text of its own, so that a stream of random tokens has an event for each.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    tokens, merges = list(alphabet), []
    letters = alphabet[: 127 - 33]
    heads = iter(letters)
    while len(tokens) < vocab_size:
        head = next(heads, None)
        if head is None:  # pairs are done
            heads = iter(tokens[len(alphabet) :])
            continue
        for last in letters[: vocab_size - len(tokens)]:
            tokens.append(head + last)
            merges.append([head, last])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges},
    }

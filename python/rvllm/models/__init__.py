"""Model definitions: one architecture per file, each with `read_config` and one straight `forward`."""

from __future__ import annotations

import re
from pathlib import Path

from rvllm.config import HARMLESS_KEYS, Fields, ModelConfig, read_json
from rvllm.errors import ModelError
from rvllm.models import llama, qwen2, qwen3
from rvllm.plan.graph import Graph, Plan

ARCHITECTURES = {
    "LlamaForCausalLM": llama,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_model_config(model: str) -> ModelConfig:
    """Read `model`/config.json of a supported architecture. Raises ModelError with one sentence."""
    root = Path(model)
    if not root.is_dir():
        hint = ""
        if _HUB_NAME.fullmatch(model):
            hint = f"; if it is a name on Hugging Face, download it first: hf download {model} --local-dir {root.name}"
        raise ModelError(f"{model}: is not a model directory{hint}")
    path = root / "config.json"
    if not path.exists():
        raise ModelError(f"{model}: holds no config.json")
    f = Fields(read_json(path), str(path), HARMLESS_KEYS)
    names = f.data.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise f.error("architectures", f"must be a list with one of {', '.join(ARCHITECTURES)}")
    if names[0] not in ARCHITECTURES:
        raise ModelError(f"{path}: architecture {names[0]} is not supported; supported are {', '.join(ARCHITECTURES)}")
    config = ARCHITECTURES[names[0]].read_config(f)
    f.warn_unknown()
    return config


def trace(config: ModelConfig, weight_dtype: str, activation_dtype: str = "f32") -> Plan:
    """Trace the model of a ModelConfig, unfused. Logits are float32 whatever the activations are."""
    g = Graph(weight_dtype, activation_dtype)
    logits = ARCHITECTURES[config.architecture].forward(g, config)
    logits.buffer.dtype = "f32"
    g.plan.logits = logits
    return g.plan

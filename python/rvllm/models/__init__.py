"""Model definitions: one architecture per file, each with `read_config` and one straight `forward`."""

from rvllm.models import llama, qwen2, qwen3

ARCHITECTURES = {
    "LlamaForCausalLM": llama,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
}

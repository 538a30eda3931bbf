"""The settings of an engine, as flags give them. None means: resolved once at load, and printed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rvllm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one engine. Field names are the flags' names with underscores.

    `model` is a Hugging Face directory. Sizes are in tokens unless the name says otherwise; memory is in bytes.
    """

    model: str
    tokenizer: str | None = None  # directory; default: the model's
    served_model_name: str | None = None
    device: str = "cpu"
    dtype: str = "auto"  # of the weights: auto (as stored), float32, float16, bfloat16
    kv_cache_dtype: str = "auto"  # auto: the weights' type
    load_format: str = "auto"  # auto | safetensors | dummy (random weights of the right shapes)
    chat_template: str | None = None  # a file or an inline template; default: the tokenizer's
    generation_config: str = "auto"  # auto: the model's generation_config.json | "none" | a directory
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None  # token budget of a step
    max_num_seqs: int | None = None
    max_prefill_chunk: int | None = None
    max_mixed_tokens: int | None = None  # token budget of a step in which sequences decode
    max_num_queued_reqs: int = 1024
    block_size: int = 16
    num_blocks: int | None = None  # --num-gpu-blocks, --num-gpu-blocks-override
    num_cpu_blocks: int = 0  # of host memory: the second tier of the prefix cache
    memory: int | None = None  # total budget in bytes, weights included
    gpu_memory_utilization: float | None = None  # share of the device's memory; default 0.9
    gpu_memory_reserve_gb: float | None = None  # GiB of the device's free memory to leave
    enable_prefix_caching: bool = True
    scheduling_policy: str = "fcfs"  # fcfs | priority
    pipeline_depth: int | None = None  # steps in flight; default: see depth()
    threads: int | None = None  # of the CPU backend
    batch_invariant: bool = False  # equal bits of a sequence in any batch; always so on the CPU
    gemm_strategy: str = "cutlass"  # of CUDA: cutlass (rvllm's own kernels) | cublas | hybrid
    seed: int = 0  # base of the seeds of requests that set none
    max_logprobs: int = 20

    def __post_init__(self) -> None:
        """Raise ConfigError for a count that the engine's 32-bit sizes cannot hold."""
        for name in (f.name for f in fields(self) if f.name not in ("memory", "seed")):
            value = getattr(self, name)
            if isinstance(value, int) and value >= 2**31:
                raise ConfigError(f"--{name.replace('_', '-')} must be below {2**31}, not {value}")

    def depth(self, device: str) -> int:
        """Return the steps in flight: two where a device runs one while the host prepares the next."""
        return self.pipeline_depth or (1 if device == "cpu" else 2)

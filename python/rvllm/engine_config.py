"""The settings of an engine, as flags give them. None means: resolved once at load, and printed."""

from __future__ import annotations

from dataclasses import dataclass


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
    max_num_queued_reqs: int = 1024
    block_size: int = 16
    num_blocks: int | None = None  # --num-gpu-blocks, --num-gpu-blocks-override
    memory: int | None = None  # total budget in bytes, weights included
    enable_prefix_caching: bool = True
    scheduling_policy: str = "fcfs"  # fcfs | priority
    pipeline_depth: int = 1  # steps in flight; 2 overlaps scheduling with an asynchronous backend
    threads: int | None = None  # of the CPU backend
    seed: int = 0  # base of the seeds of requests that set none
    max_logprobs: int = 20

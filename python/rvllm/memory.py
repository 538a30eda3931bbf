"""The memory of an engine, computed before anything is allocated, and the sizes that follow from it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from rvllm.config import ModelConfig
from rvllm.engine_config import EngineConfig
from rvllm.errors import CapacityError, ConfigError
from rvllm.plan.graph import Plan

if TYPE_CHECKING:
    from rvllm._native.device import Device, Limits
    from rvllm._native.plan import NativePlan

_ITEM_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
GIB = 1 << 30
Row = tuple[str, int, str]  # purpose, bytes, remark
# Sequences, tokens, tokens beside decodes: of the last so few that a decode does not wait long for prompts, so many
# that products are as fast as in larger steps.
_DEFAULT_STEP = {"cpu": (64, 512, 128), "cuda": (256, 4096, 1024)}
_DEFAULT_UTILIZATION = 0.9  # share of a device's memory
_USUAL_LEN = 1024  # tokens for which the default cache has room per running sequence
_LONGEST_SEQS = 4  # sequences of the maximal length for which it has room
_DEFAULT_CACHE_BYTES = 4 * GIB
_DEFAULT_CACHE_SHARE = 0.4  # of what is available besides the rest
_MAX_BLOCKS = 1 << 24
_SCORED_ROWS = 32  # rows of logits a step has at least, so that prompt log-probabilities do not crawl


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Every size an engine was given or has resolved; tokens unless the name says otherwise."""

    dtype: str
    kv_cache_dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_prefill_chunk: int
    max_mixed_tokens: int
    max_rows: int
    block_size: int
    num_blocks: int
    num_cpu_blocks: int = 0
    notes: tuple[str, ...] = ()  # what was resolved otherwise than the model asks

    def limits(self, n_groups: int = 1) -> Limits:
        from rvllm._native.device import Limits

        blocks_per_seq = -(-self.max_model_len // self.block_size)
        return Limits(
            self.max_num_batched_tokens,
            self.max_num_seqs,
            self.max_rows,
            self.max_num_seqs * blocks_per_seq,
            n_groups,
            max_moves=max(self.max_num_batched_tokens, blocks_per_seq) if self.num_cpu_blocks else 0,
        )

    def text(self) -> str:
        lines = [
            f"{'sizes':<28}",
            f"  {'dtype':<26}{self.dtype}, KV cache {self.kv_cache_dtype}",
            f"  {'max-model-len':<26}{self.max_model_len}",
            f"  {'max-num-seqs':<26}{self.max_num_seqs}",
            f"  {'max-num-batched-tokens':<26}{self.max_num_batched_tokens}",
            f"  {'max-prefill-chunk':<26}{self.max_prefill_chunk}",
            f"  {'max-mixed-tokens':<26}{self.max_mixed_tokens}",
            f"  {'num-blocks':<26}{self.num_blocks} of {self.block_size} tokens",
            *([f"  {'num-cpu-blocks':<26}{self.num_cpu_blocks}"] if self.num_cpu_blocks else []),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(line.rstrip() for line in lines)


class _StepSizes(TypedDict):
    max_num_seqs: int
    max_num_batched_tokens: int
    max_prefill_chunk: int
    max_mixed_tokens: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """Bytes by purpose, in order, each with a remark; on a device of its own memory, those of the host beside them."""

    rows: tuple[Row, ...]
    host: tuple[Row, ...] = ()

    @property
    def total(self) -> int:
        return sum(n_bytes for _, n_bytes, _ in self.rows)

    def bytes_of(self, purpose: str) -> int:
        return next(n_bytes for name, n_bytes, _ in self.rows if name == purpose)

    def text(self) -> str:
        title = "device memory" if self.host else "memory"
        lines = [f"{title:<20}{'bytes':>16}", *_table_lines((*self.rows, ("total", self.total, "")))]
        if self.host:
            total = sum(n_bytes for _, n_bytes, _ in self.host)
            lines += [f"{'host memory':<20}{'bytes':>16}", *_table_lines((*self.host, ("total", total, "")))]
        return "\n".join(lines)


def _table_lines(rows: tuple[Row, ...]) -> list[str]:
    return [
        f"  {name:<18}{n_bytes:>16,}{format_bytes(n_bytes):>13}  {remark}".rstrip() for name, n_bytes, remark in rows
    ]


def format_bytes(n_bytes: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n_bytes >= size:
            return f"{n_bytes / size:.2f} {unit}"
    return f"{n_bytes} B"


def resolve(
    config: EngineConfig,
    model: ModelConfig,
    plan: Plan,
    native: NativePlan,
    device: Device,
    dtype: str,
    kv_cache_dtype: str,
) -> tuple[Sizes, MemoryTable]:
    """Resolve every unset size and lay out the memory.

    Raises ConfigError for flags that contradict each other or the model, CapacityError when something does not fit,
    saying which flag would make it fit.
    """
    block_size = config.block_size
    if block_size < 1 or block_size & (block_size - 1):
        raise ConfigError(f"--block-size must be a power of two, not {block_size}")
    _check_budget_flags(config, device)
    if config.scheduling_policy not in ("fcfs", "priority"):
        raise ConfigError(f"--scheduling-policy must be fcfs or priority, not {config.scheduling_policy}")
    if not 0 <= config.max_logprobs <= model.vocab_size:
        raise ConfigError(
            f"--max-logprobs must be 0 to the {model.vocab_size} tokens there are, not {config.max_logprobs}"
        )
    sizes = Sizes(
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        max_model_len=_asked_model_len(config, model),
        block_size=block_size,
        num_blocks=0,
        num_cpu_blocks=config.num_cpu_blocks,
        **_resolve_steps(config, device),
    )
    block_bytes = _block_bytes(plan, sizes)
    _check_cpu_blocks(config, block_bytes, device)
    if sizes.max_num_seqs * _blocks(sizes.max_model_len, block_size) >= 2**31:
        raise CapacityError(
            f"--max-num-seqs {sizes.max_num_seqs} of {sizes.max_model_len} tokens have more blocks than a step can"
            " name: lower it or --max-model-len"
        )
    fixed = _fixed_table(config, plan, native, device, sizes)
    num_blocks = _resolve_blocks(config, sizes, block_bytes, fixed, device)
    sizes = _cap_model_len(config, replace(sizes, num_blocks=num_blocks), block_bytes, device)
    cache = ("KV cache", num_blocks * block_bytes, f"{num_blocks} blocks of {block_size} tokens, {kv_cache_dtype}")
    fixed = _fixed_table(config, plan, native, device, sizes)
    weights, *others = fixed.rows
    return sizes, replace(fixed, rows=(weights, cache, *others))


def _block_bytes(plan: Plan, sizes: Sizes) -> int:
    token_items = sum(2 * g.n_layers * g.n_kv_heads * g.head_dim for g in plan.cache_groups)
    return token_items * sizes.block_size * _ITEM_BYTES[sizes.kv_cache_dtype]


def _check_cpu_blocks(config: EngineConfig, block_bytes: int, device: Device) -> None:
    n = config.num_cpu_blocks
    if n < 0:
        raise ConfigError(f"--num-cpu-blocks must be at least 0, not {n}")
    if n and not config.enable_prefix_caching:
        raise ConfigError(f"--num-cpu-blocks {n} needs the prefix cache: leave out --no-enable-prefix-caching")
    free = device.host_memory_available()
    if n * block_bytes > free:
        raise CapacityError(
            f"--num-cpu-blocks {n} takes {format_bytes(n * block_bytes)} of host memory, but {format_bytes(free)} are"
            f" available: at most {free // block_bytes} blocks fit"
        )


def _check_budget_flags(config: EngineConfig, device: Device) -> None:
    given = {
        "--memory": config.memory,
        "--gpu-memory-utilization": config.gpu_memory_utilization,
        "--gpu-memory-reserve-gb": config.gpu_memory_reserve_gb,
    }
    flags = [flag for flag, value in given.items() if value is not None]
    if len(flags) > 1:
        raise ConfigError(f"{' and '.join(flags)} contradict each other: give one of them")
    if flags and flags[0] != "--memory" and device.name == "cpu":
        raise ConfigError(f"{flags[0]} needs --device cuda; on the CPU use --memory")
    share = config.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"--gpu-memory-utilization must be above 0 and at most 1, not {share:g}")


def _resolve_steps(config: EngineConfig, device: Device) -> _StepSizes:
    """Resolve sequences, tokens, prefill chunk and rows of a step, in which every running sequence must fit."""
    tokens, seqs = config.max_num_batched_tokens, config.max_num_seqs
    for flag, value in (
        ("--max-num-batched-tokens", tokens),
        ("--max-num-seqs", seqs),
        ("--max-prefill-chunk", config.max_prefill_chunk),
        ("--max-mixed-tokens", config.max_mixed_tokens),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{flag} must be at least 1, not {value}")
    usual_seqs, usual_tokens, usual_mixed = _DEFAULT_STEP[device.name]
    if seqs is None:
        seqs = min(usual_seqs, tokens or usual_seqs)
    if tokens is None:
        tokens = max(usual_tokens, seqs)
    if tokens < seqs:
        raise ConfigError(f"--max-num-batched-tokens {tokens} is below --max-num-seqs {seqs}: decodes would not fit")
    chunk = config.max_prefill_chunk or tokens
    if chunk > tokens:
        raise ConfigError(f"--max-prefill-chunk {chunk} is above --max-num-batched-tokens {tokens}")
    mixed = config.max_mixed_tokens or min(tokens, max(usual_mixed, seqs + seqs // 2))
    if mixed > tokens:
        raise ConfigError(f"--max-mixed-tokens {mixed} is above --max-num-batched-tokens {tokens}")
    if mixed < seqs:
        raise ConfigError(f"--max-mixed-tokens {mixed} is below --max-num-seqs {seqs}: decodes would not fit")
    return {
        "max_num_seqs": seqs,
        "max_num_batched_tokens": tokens,
        "max_prefill_chunk": chunk,
        "max_mixed_tokens": mixed,
        "max_rows": max(seqs, min(_SCORED_ROWS, tokens)),
    }


def _asked_model_len(config: EngineConfig, model: ModelConfig) -> int:
    asked, own = config.max_model_len, model.max_position_embeddings
    if asked is None:
        return own
    if asked < 2:
        raise ConfigError(f"--max-model-len must be at least 2, a token of prompt and one of answer, not {asked}")
    if asked > own:
        raise ConfigError(f"--max-model-len {asked} is above the model's {own} positions (max_position_embeddings)")
    return asked


def _fixed_table(config: EngineConfig, plan: Plan, native: NativePlan, device: Device, sizes: Sizes) -> MemoryTable:
    """Everything that is allocated but the KV cache, weights first."""
    limits = sizes.limits(len(plan.cache_groups))
    groups = [(g.n_layers, g.n_kv_heads, g.head_dim) for g in plan.cache_groups]
    arena, _ = native.arena(limits)
    workspace = native.workspace_bytes(
        device, limits, kv_dtype=sizes.kv_cache_dtype, groups=groups, block_size=sizes.block_size
    )
    sampler = device.sampler_bytes(limits, plan.logits.cols, config.max_logprobs, sizes.max_model_len)
    process = ("process", process_bytes(), "Python and its libraries, as they are now")
    weights = sum(device.weight_bytes(w) for w in plan.weights())
    rows = (
        ("weights", weights, f"{len(plan.weights())} weights, {sizes.dtype}"),
        ("activations", arena, f"{limits.max_tokens} tokens, logits of {limits.max_rows} rows"),
        ("workspace", workspace, "products, attention and staging"),
        ("sampler", sampler, f"{limits.max_seqs} sequences" if device.name != "cpu" else f"{device.threads} threads"),
    )
    n_cpu = sizes.num_cpu_blocks
    swapped = (("host KV cache", n_cpu * _block_bytes(plan, sizes), f"{n_cpu} blocks"),) if n_cpu else ()
    depth = config.depth(device.name)
    inputs = f"of {limits.max_table_entries} blocks"
    if device.name == "cpu":
        return MemoryTable(
            (*rows, *swapped, ("step inputs", (depth + 1) * limits.step_bytes(), f"{depth + 1} {inputs}"), process)
        )
    runtime = ("runtime", device.runtime_bytes(), "context, kernels, captured steps: an estimate")
    return MemoryTable(
        (*rows, ("step inputs", limits.step_bytes(), f"1 {inputs}"), runtime),
        host=(*swapped, ("step inputs", depth * limits.step_bytes(), f"{depth} {inputs}"), process),
    )


def process_bytes() -> int:
    """Return the resident bytes of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _blocks(n_tokens: int, block_size: int) -> int:
    return -(-n_tokens // block_size)


def _resolve_blocks(config: EngineConfig, sizes: Sizes, block_bytes: int, fixed: MemoryTable, device: Device) -> int:
    """Return the number of KV blocks: as asked, what the budget leaves, or a default from the machine's memory."""
    used, weights = fixed.total, fixed.bytes_of("weights")
    budget, source = _budget(config, fixed, device)
    if used + block_bytes > budget:
        raise CapacityError(
            f"the model needs {format_bytes(used)} without its KV cache ({format_bytes(weights)} of weights), but"
            f" {format_bytes(budget)} {source}: {_more_memory(config)} or lower --max-num-batched-tokens"
        )
    if config.num_blocks is not None:
        if config.num_blocks < 1:
            raise ConfigError(f"--num-blocks must be at least 1, not {config.num_blocks}")
        need = used + config.num_blocks * block_bytes
        if need > budget:
            fits = (budget - used) // block_bytes
            raise CapacityError(
                f"--num-blocks {config.num_blocks} makes {format_bytes(need)} in all, but {format_bytes(budget)}"
                f" {source}: at most {fits} blocks fit"
            )
        return config.num_blocks
    if config.memory is not None or device.name != "cpu":
        return min((budget - used) // block_bytes, _MAX_BLOCKS)
    longest = _blocks(sizes.max_model_len, sizes.block_size)
    usual = _blocks(min(sizes.max_model_len, _USUAL_LEN), sizes.block_size)
    wanted = max(_LONGEST_SEQS * longest, sizes.max_num_seqs * usual)
    allowed = min(_DEFAULT_CACHE_BYTES, int(_DEFAULT_CACHE_SHARE * (budget - used))) // block_bytes
    return max(1, min(wanted, allowed))


def _budget(config: EngineConfig, fixed: MemoryTable, device: Device) -> tuple[int, str]:
    """Return the bytes that everything may take, and where that comes from, for an error."""
    if device.name == "cpu":
        free = device.memory_available() + fixed.bytes_of("process")
    else:  # the context exists already
        free = device.memory_available() + device.runtime_bytes()
    if config.memory is not None:
        return config.memory, "are allowed by --memory"
    if config.gpu_memory_reserve_gb is not None:
        reserved = int(config.gpu_memory_reserve_gb * GIB)
        return free - reserved, f"are left by --gpu-memory-reserve-gb {config.gpu_memory_reserve_gb:g}"
    if device.name == "cpu":
        return free, "are available"
    share = config.gpu_memory_utilization
    allowed = int(device.memory_total() * (_DEFAULT_UTILIZATION if share is None else share))
    if allowed > free:
        return free, "are available"
    return allowed, f"are allowed by --gpu-memory-utilization {_DEFAULT_UTILIZATION if share is None else share:g}"


def _cap_model_len(config: EngineConfig, sizes: Sizes, block_bytes: int, device: Device) -> Sizes:
    """Cap an unset maximal length to what the cache holds; refuse one that was asked for."""
    longest, room = sizes.max_model_len, sizes.num_blocks * sizes.block_size
    if room < 2:
        raise CapacityError(f"a KV cache of one token holds no answer: {_more_blocks(config, device)}")
    if room >= longest:
        return sizes
    if config.max_model_len is not None:
        need = _blocks(longest, sizes.block_size)
        raise CapacityError(
            f"--max-model-len {longest} needs {need} blocks ({format_bytes(need * block_bytes)}) of KV cache, but there"
            f" are {sizes.num_blocks}: {_more_blocks(config, device)} or ask for at most {room} tokens"
        )
    note = f"max-model-len is {room}, not the model's {longest}: that is what the KV cache holds"
    return replace(sizes, max_model_len=room, notes=(note,))


def _more_memory(config: EngineConfig) -> str:
    if config.memory is not None:
        return "raise --memory"
    if config.gpu_memory_utilization is not None:
        return "raise --gpu-memory-utilization"
    if config.gpu_memory_reserve_gb is not None:
        return "lower --gpu-memory-reserve-gb"
    return "free some memory"


def _more_blocks(config: EngineConfig, device: Device) -> str:
    if config.num_blocks is not None:
        return "raise --num-blocks"
    if config.memory is None and device.name == "cpu":
        return "set --num-blocks or --memory"
    return _more_memory(config)

"""Load a model: configuration, plan, memory, weights. Also the text of `rvllm plan`, which needs no weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rvllm._native.bound_plan import BoundPlan
from rvllm._native.device import GEMM_STRATEGIES, Device
from rvllm._native.plan import NativePlan
from rvllm.config import GenerationDefaults, ModelConfig, read_generation_config
from rvllm.engine_config import EngineConfig
from rvllm.errors import CapacityError, ConfigError
from rvllm.kernel_table import cublas_library, use_table
from rvllm.memory import MemoryTable, Sizes, resolve
from rvllm.models import read_model_config, trace
from rvllm.plan.fusion import fuse
from rvllm.plan.graph import OPS, Node, Plan
from rvllm.plan.show import plan_lines
from rvllm.weights import (
    Progress,
    StoredTensor,
    check_checkpoint,
    open_checkpoint,
    pack_checkpoint,
    pack_dummy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("rvllm")

_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_MAX_THREADS = 1024
_SHOWN_ROWS = (1, 16, 64, 256, 2048)
_STORED = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run steps."""

    model: ModelConfig
    generation: GenerationDefaults
    eos_token_ids: tuple[int, ...]
    sizes: Sizes
    memory: MemoryTable
    plan: BoundPlan


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """Everything that is known before anything is allocated."""

    model: ModelConfig
    plan: Plan
    native: NativePlan
    device: Device
    kernels: list[str]
    sizes: Sizes
    memory: MemoryTable

    def text(self) -> str:
        """Return the plan, the sizes and the memory table."""
        lines = plan_lines(self.plan, self.kernels, self.device)
        head = f"{self.model.architecture}, {len(self.plan.ops)} ops, device {self.device.name}"
        if self.device.name != "cpu":  # of the CPU, the golden texts are for every machine
            head += f" ({self.device.description})"
        return "\n".join([head, "", *lines, "", *self._variants(), self.sizes.text(), "", self.memory.text(), ""])

    def _variants(self) -> list[str]:
        """Return how kernels that have several ways run some numbers of rows, equal ones once."""
        found = self.native.variants(self.device, self.sizes.kv_cache_dtype, _SHOWN_ROWS)
        ways = {(self.plan.ops[i].weights[0].n, self.plan.ops[i].weights[0].k, tuple(w)) for i, w in found}
        if not ways:
            return []
        lines = [f"{'rows':<8}{'weight':<16}kernel"]
        for n, k, texts in sorted(ways):
            lines += [f"{r:<8}{f'[{n}, {k}]':<16}{t}" for r, t in zip(_SHOWN_ROWS, texts, strict=True)]
        return [*lines, ""]


def plan_model(
    config: EngineConfig, model: ModelConfig, tensors: dict[str, StoredTensor], device: Device | None = None
) -> PlannedModel:
    """Trace and fuse the model, choose kernels, resolve sizes. `tensors` may be empty: no weights are read.

    `device` may be one that can only be planned for; default: the one that `config` names.
    """
    if config.threads is not None and not 1 <= config.threads <= _MAX_THREADS:
        raise ConfigError(f"--threads must be 1 to {_MAX_THREADS}, not {config.threads}")
    device = device or _device(config)
    dtype = _weight_dtype(config.dtype, model, tensors)
    kv_cache_dtype = _flag_dtype("--kv-cache-dtype", config.kv_cache_dtype) or dtype
    plan = fuse(trace(model, dtype, device.activation_dtype(dtype)))
    native = NativePlan(plan)
    kernels = _kernels(plan, native, device, kv_cache_dtype)
    sizes, memory = resolve(config, model, plan, native, device, dtype, kv_cache_dtype)
    return PlannedModel(model, plan, native, device, kernels, sizes, memory)


def plan_text(config: EngineConfig, gpu_memory: int | None = None, gpu_arch: int = 90) -> str:
    """Return what `rvllm plan` prints: a directory with only config.json is enough.

    `gpu_memory` in bytes: plan for a GPU that is not here, of compute capability `gpu_arch` (90 for sm_90).
    """
    device = None
    if gpu_memory is not None:
        if config.device != "cuda":
            raise ConfigError("--gpu-memory needs --device cuda")
        device = _device(config, plan_arch=gpu_arch, plan_memory=gpu_memory)
    return plan_model(config, read_model_config(config.model), {}, device).text()


def _device(config: EngineConfig, **planned: int) -> Device:
    strategy = config.gemm_strategy
    if strategy not in GEMM_STRATEGIES:
        raise ConfigError(f"--gemm-strategy must be one of {', '.join(GEMM_STRATEGIES)}, not {strategy}")
    if strategy != "cutlass" and config.device != "cuda":
        raise ConfigError(f"--gemm-strategy {strategy} needs --device cuda")
    if strategy != "cutlass" and config.batch_invariant:
        raise ConfigError(f"--batch-invariant needs rvllm's own kernels: leave out --gemm-strategy {strategy}")
    library = cublas_library() if strategy != "cutlass" else ""
    try:
        device = Device(
            config.device,
            config.threads,
            batch_invariant=config.batch_invariant,
            gemm_strategy=strategy,
            cublas_library=library,
            **planned,
        )
    except ValueError as e:
        raise ConfigError(f"--device {config.device} is not available: {e}") from None
    if config.device == "cuda" and not planned and not config.batch_invariant:
        use_table(device, strategy)
    return device


def load(config: EngineConfig, progress: Progress | None = None, model: ModelConfig | None = None) -> LoadedModel:
    """Load a model: plan it, allocate its memory, pack its weights.

    `model` is its configuration where that has been read already. `progress` is called with (done, total) while weights
    are packed. Raises ModelError, ConfigError or CapacityError.
    """
    if config.load_format not in ("auto", "safetensors", "dummy"):
        raise ConfigError(f"--load-format must be auto, safetensors or dummy, not {config.load_format}")
    model = model or read_model_config(config.model)
    generation, eos = read_generation_config(config.model, config.generation_config)
    dummy = config.load_format == "dummy"
    tensors = {} if dummy else open_checkpoint(config.model)
    planned = plan_model(config, model, tensors)
    if not dummy:
        check_checkpoint(planned.plan, tensors, config.model)
    for note in planned.sizes.notes:
        log.warning("%s", note)
    bound = _bind(planned)
    if dummy:
        pack_dummy(planned.plan, bound, progress, config.seed)
    else:
        pack_checkpoint(planned.plan, bound, tensors, progress)
    return LoadedModel(model, generation, eos or model.eos_token_ids, planned.sizes, planned.memory, bound)


def _bind(p: PlannedModel) -> BoundPlan:
    try:
        return BoundPlan(
            p.native,
            p.device,
            p.sizes.limits(len(p.plan.cache_groups)),
            kv_dtype=p.sizes.kv_cache_dtype,
            groups=[(g.n_layers, g.n_kv_heads, g.head_dim) for g in p.plan.cache_groups],
            n_blocks=p.sizes.num_blocks,
            block_size=p.sizes.block_size,
            max_model_len=p.sizes.max_model_len,
            n_host_blocks=p.sizes.num_cpu_blocks,
        )
    except MemoryError as e:
        flags = "--memory, --num-cpu-blocks," if p.sizes.num_cpu_blocks else "--memory,"
        raise CapacityError(f"{e}: lower {flags} --num-blocks or --max-model-len") from None


def _flag_dtype(flag: str, name: str) -> str | None:
    """Return the short name of a type given by a flag; None for auto."""
    if name == "auto":
        return None
    if name not in _DTYPES:
        raise ConfigError(f"{flag} must be auto, {', '.join(_DTYPES)}, not {name}")
    return _DTYPES[name]


def _weight_dtype(flag: str, model: ModelConfig, tensors: dict[str, StoredTensor]) -> str:
    """Return the type of the weights: the flag's, config.json's, that of the stored matrices, or f32."""
    stored = (_STORED.get(t.dtype) for t in tensors.values() if len(t.shape) == 2)
    return _flag_dtype("--dtype", flag) or model.dtype or next(stored, None) or "f32"


def _kernels(plan: Plan, native: NativePlan, device: Device, kv_cache_dtype: str) -> list[str]:
    """Return the kernel of every op, or refuse with the list of all that are missing."""
    names: Sequence[str | None] = native.kernels(device, kv_cache_dtype)
    gaps = dict.fromkeys(_describe(n, kv_cache_dtype) for n, k in zip(plan.ops, names, strict=True) if k is None)
    if gaps:
        why = "".join(f". {reason[0].upper()}{reason[1:]}" for reason in native.refusals(device, kv_cache_dtype))
        raise ConfigError(f"device {device.name} has no kernel for: {'; '.join(gaps)}{why}")
    return [k for k in names if k is not None]


def _describe(n: Node, kv_cache_dtype: str) -> str:
    """Describe what a kernel is looked up by."""
    x = n.inputs[0]
    parts = [f"{x.dtype} [{x.cols}]"]
    parts += [f"{w.format} {w.dtype} [{w.n}, {w.k}]" for w in n.weights[:1]]
    if "layer" in OPS[n.op].attrs:
        parts.append(f"cache {kv_cache_dtype}")
    parts += [f"{name} {value:g}" for name, value in n.attrs.items() if name not in ("layer", "group")]
    return f"{n.op} ({', '.join(parts)})"

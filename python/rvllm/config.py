"""Read a model directory's config.json and generation_config.json: strictly, every error naming file and field.

A value that is not implemented is refused; a key that nobody knows is a warning, since fine-tunes add many.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvllm.errors import ModelError

log = logging.getLogger("rvllm")

_REQUIRED: Any = object()

# Keys that describe training, transformers itself or other software, and change nothing here.
HARMLESS_KEYS = frozenset(
    (
        *("architectures", "model_type", "auto_map", "_name_or_path", "transformers_version", "unsloth_version"),
        *("torch_dtype", "dtype", "use_cache", "initializer_range", "attention_dropout", "return_dict"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "output_attentions", "output_hidden_states"),
    )
)
_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class Fields:
    """A JSON object read field by field. A null counts as absent; every key asked for counts as known."""

    def __init__(self, data: dict[str, Any], where: str, known: Sequence[str] | frozenset[str] = ()):
        self.data = data
        self.where = where
        self._known = set(known)

    def error(self, key: str, problem: str) -> ModelError:
        return ModelError(f"{self.where}: {key} {problem}")

    def has(self, key: str) -> bool:
        self._known.add(key)
        return self.data.get(key) is not None

    def _get(self, key: str, kind: type | tuple[type, ...], kind_name: str, default: Any) -> Any:
        if not self.has(key):
            if default is _REQUIRED:
                raise self.error(key, "is missing")
            return default
        value = self.data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"must be {kind_name}, not {json.dumps(value)[:60]}")
        return value

    def integer(self, key: str, default: int = _REQUIRED, minimum: int = 1) -> int:
        value = self._get(key, int, "an integer", default)
        if value is not default and not minimum <= value < 2**31:
            raise self.error(key, f"must be an integer of at least {minimum}, not {value}")
        return value

    def number(self, key: str, default: float = _REQUIRED, minimum: float = 0.0) -> float:
        value = self._get(key, (int, float), "a number", default)
        if value is not default and not (math.isfinite(value) and value >= minimum):
            raise self.error(key, f"must be a finite number of at least {minimum:g}, not {value}")
        return value

    def boolean(self, key: str, default: bool = _REQUIRED) -> bool:
        return self._get(key, bool, "true or false", default)

    def string(self, key: str, default: str = _REQUIRED) -> str:
        return self._get(key, str, "a string", default)

    def section(self, key: str) -> Fields | None:
        data = self._get(key, dict, "an object", None)
        return None if data is None else Fields(data, f"{self.where}: {key}")

    def ids(self, key: str) -> tuple[int, ...]:
        """Read one token id or a list of them; absent: none."""
        value = self.data[key] if self.has(key) else []
        ids = value if isinstance(value, list) else [value]
        if not all(type(i) is int and i >= 0 for i in ids):
            raise self.error(key, f"must be a token id or a list of them, not {json.dumps(value)[:60]}")
        return tuple(ids)

    def only(self, key: str, *implemented: Any) -> None:
        """Refuse any present value that is not one of `implemented`."""
        if self.has(key) and self.data[key] not in implemented:
            ways = " or ".join(json.dumps(i) for i in implemented)
            raise self.error(key, f"is {json.dumps(self.data[key])[:60]}, but only {ways} is implemented")

    def refuse(self, key: str, why: str) -> None:
        if self.has(key) and self.data[key] not in ({}, []):
            raise self.error(key, why)

    def warn_unknown(self) -> None:
        unknown = sorted(set(self.data) - self._known)
        if unknown:
            log.warning("%s: keys that rvllm does not know are ignored: %s", self.where, ", ".join(unknown))


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary embedding: `kind` is default, linear or llama3; the other fields are the scaling's own."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_len: int = 8192

    def inv_freq(self, rotary_dim: int) -> np.ndarray:
        """Return the [rotary_dim / 2] float32 frequencies, computed in float32 as transformers does."""
        f32 = np.float32
        exponents = np.arange(0, rotary_dim, 2, dtype=f32) / f32(rotary_dim)
        freq = f32(1) / f32(self.theta) ** exponents
        if self.kind == "linear":
            return freq / f32(self.factor)
        if self.kind == "llama3":
            wavelen = f32(2 * math.pi) / freq
            low_wavelen = self.original_max_len / self.low_freq_factor
            high_wavelen = self.original_max_len / self.high_freq_factor
            scaled = np.where(wavelen > f32(low_wavelen), freq / f32(self.factor), freq)
            smooth = (f32(self.original_max_len) / wavelen - f32(self.low_freq_factor)) / f32(
                self.high_freq_factor - self.low_freq_factor
            )
            between = (f32(1) - smooth) * scaled / f32(self.factor) + smooth * scaled
            medium = ~(wavelen < f32(high_wavelen)) & ~(wavelen > f32(low_wavelen))
            return np.where(medium, between, scaled).astype(f32)
        return freq


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a decoder-only model's forward needs to know; sizes in elements."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope: RopeConfig
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    dtype: str | None  # f32, f16, bf16 as stored; None: the file does not say
    bos_token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]

    @property
    def q_size(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.n_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Sampling defaults of generation_config.json; None where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


def read_rope(f: Fields) -> RopeConfig:
    """Read `rope_theta` with `rope_scaling`, or `rope_parameters` (transformers 5), which holds both."""
    theta = f.number("rope_theta", 10000.0)
    f.only("partial_rotary_factor", 1, 1.0)
    max_len = f.integer("max_position_embeddings")
    both = [r for r in (f.section("rope_parameters"), f.section("rope_scaling")) if r is not None]
    if not both:
        return RopeConfig(theta=theta)
    r = both[0]
    kind = r.string("rope_type", r.string("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise r.error("rope_type", f"is {kind!r}; implemented are default, linear and llama3")
    r.only("partial_rotary_factor", 1, 1.0)
    theta = r.number("rope_theta", theta)
    if theta <= 0:
        raise r.error("rope_theta", "must be above 0")
    if kind == "default":
        return RopeConfig(theta=theta)
    factor = r.number("factor", minimum=1.0)
    if kind == "linear":
        return RopeConfig("linear", theta, factor)
    low, high = r.number("low_freq_factor", minimum=1e-6), r.number("high_freq_factor", minimum=1e-6)
    if high <= low:
        raise r.error("high_freq_factor", f"must be above low_freq_factor ({low:g}), not {high:g}")
    return RopeConfig("llama3", theta, factor, low, high, r.integer("original_max_position_embeddings", max_len))


def read_decoder(f: Fields, *, qkv_bias: bool, o_bias: bool, mlp_bias: bool) -> ModelConfig:
    """Read what the Llama family has in common; the arguments are what differs between its members."""
    f.only("hidden_act", "silu")
    f.only("use_mrope", False)
    f.refuse("quantization_config", "is set: quantised checkpoints are not implemented")
    n_layers = f.integer("num_hidden_layers")
    hidden_size, n_heads = f.integer("hidden_size"), f.integer("num_attention_heads")
    n_kv_heads = f.integer("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        raise f.error("num_attention_heads", f"({n_heads}) is not a multiple of num_key_value_heads ({n_kv_heads})")
    if not f.has("head_dim") and hidden_size % n_heads:
        raise f.error("hidden_size", f"({hidden_size}) is not a multiple of num_attention_heads ({n_heads})")
    head_dim = f.integer("head_dim", hidden_size // n_heads)
    if head_dim % 2:
        raise f.error("head_dim", f"must be even, not {head_dim}")
    _refuse_sliding_window(f, n_layers)
    return ModelConfig(
        architecture=f.data["architectures"][0],
        vocab_size=f.integer("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=f.integer("intermediate_size"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=f.number("rms_norm_eps", 1e-6),
        max_position_embeddings=f.integer("max_position_embeddings"),
        rope=read_rope(f),
        tie_word_embeddings=f.boolean("tie_word_embeddings", False),
        qkv_bias=qkv_bias,
        o_bias=o_bias,
        mlp_bias=mlp_bias,
        dtype=_read_dtype(f),
        bos_token_ids=f.ids("bos_token_id"),
        eos_token_ids=f.ids("eos_token_id"),
    )


def _refuse_sliding_window(f: Fields, n_layers: int) -> None:
    """Qwen's configurations carry a window that is off unless `use_sliding_window`; refuse only one in use."""
    window = f.integer("sliding_window", 0, minimum=0)
    first = f.integer("max_window_layers", 0, minimum=0)
    if f.boolean("use_sliding_window", False) and window and first < n_layers:
        raise f.error("use_sliding_window", f"is true for layers {first} to {n_layers - 1}: it is not implemented")
    if f.has("layer_types"):
        kinds = f.data["layer_types"]
        if not isinstance(kinds, list) or len(kinds) != n_layers:
            raise f.error("layer_types", f"must be a list of {n_layers} names, one per layer")
        for i, kind in enumerate(kinds):
            if kind != "full_attention":
                raise f.error(
                    "layer_types", f"has {json.dumps(kind)} for layer {i}: only full_attention is implemented"
                )


def _read_dtype(f: Fields) -> str | None:
    name = f.string("dtype", f.string("torch_dtype", ""))
    if name and name not in _DTYPES:
        raise f.error("dtype", f"is {name!r}; implemented are {', '.join(_DTYPES)}")
    return _DTYPES.get(name)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or raise a ModelError that names the file."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as e:
        raise ModelError(f"{path}: cannot be read: {e.strerror}") from None
    except ValueError as e:
        raise ModelError(f"{path}: is not valid JSON: {e}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path}: must hold a JSON object, not a {type(data).__name__}")
    return data


def read_generation_config(model: str, source: str = "auto") -> tuple[GenerationDefaults, tuple[int, ...]]:
    """Return the sampling defaults and the ids that end a sequence (empty: generation_config.json names none).

    `source` is auto (the model's own file, if there is one), none (no defaults; the end ids are still the model's), or
    a directory with another generation_config.json.
    """
    own = Path(model) / "generation_config.json"
    path = own if source in ("auto", "none") else Path(source) / "generation_config.json"
    if not path.exists():
        if path is not own:
            raise ModelError(f"{source}: holds no generation_config.json")
        return GenerationDefaults(), ()
    f = Fields(read_json(path), str(path))
    eos = f.ids("eos_token_id")
    if source == "none":
        return GenerationDefaults(), eos

    def optional(read: Callable[..., Any], key: str, **limits: Any) -> Any:
        return read(key, **limits) if f.has(key) else None

    return (
        GenerationDefaults(
            temperature=optional(f.number, "temperature"),
            top_p=optional(f.number, "top_p"),
            top_k=optional(f.integer, "top_k", minimum=0),
            min_p=optional(f.number, "min_p"),
            repetition_penalty=optional(f.number, "repetition_penalty"),
            max_new_tokens=optional(f.integer, "max_new_tokens"),
        ),
        eos,
    )

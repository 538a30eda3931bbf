"""All command-line flags, in the reference's spelling: the engine's, the server's, and those that are refused by name.

Imports nothing heavy: `rvllm --help` reads this file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError
from rvllm.serve.options import ServeOptions

T = TypeVar("T", EngineConfig, ServeOptions)

DEMO_MODEL = Path(__file__).parent / "demo"

_DTYPES = {"auto": "auto", "float32": "float32", "float": "float32", "float16": "float16", "half": "float16"}
_DTYPES["bfloat16"] = "bfloat16"
_UNITS = {"": 1, "b": 1}
for _i, _letter in enumerate("kmgt", 1):
    _UNITS |= {_letter: 1024**_i, f"{_letter}ib": 1024**_i, f"{_letter}b": 1000**_i}


def size_bytes(text: str) -> int:
    """Parse a size such as 24GiB (powers of 1024), 24GB (powers of 1000), 24G (as GiB) or a number of bytes."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 24GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type for integers from `low` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is below {low}")
        return value

    return parse


def seconds(text: str) -> float:
    """Argparse type for a time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def not_empty(text: str) -> str:
    """Argparse type for a text that an unset variable of a shell must not make empty."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return text


def text_list(text: str) -> list[str]:
    """Argparse type for a JSON list of texts."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON list of texts")
    return values


def port(text: str) -> int:
    """Argparse type for a TCP port; 0 lets the system choose."""
    value = at_least(0)(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{value} is not a port")
    return value


# ---- flags that exist --------------------------------------------------------------------------------------


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that make an EngineConfig; see engine_config()."""
    positive = at_least(1)
    add = _adder(parser, "model", EngineConfig)
    add("model", nargs="?", metavar="MODEL", default=None, help="Hugging Face directory with the model")
    add("--model", dest="model_flag", metavar="MODEL", help=argparse.SUPPRESS)
    add("--tokenizer", metavar="DIR", help="directory with the tokenizer (default: the model's)")
    add("--dtype", type=_dtype, metavar="TYPE", help="of the weights: auto (as stored), float32, float16, bfloat16")
    add("--load-format", choices=("auto", "safetensors", "dummy"), help="dummy: random weights of the right shapes")
    add("--generation-config", metavar="SOURCE", help="sampling defaults: auto (the model's), none, or a directory")
    add("--chat-template", metavar="FILE", help="chat template, a file or the text (default: the model's)")

    add = _adder(parser, "batching", EngineConfig)
    add("--max-model-len", type=positive, metavar="N", help="context length in tokens (default: the model's)")
    add("--max-num-seqs", type=positive, metavar="N", help="sequences in one step")
    add("--max-num-batched-tokens", type=positive, metavar="N", help="token budget of one step")
    add("--max-prefill-chunk", type=positive, metavar="N", help="prompt tokens of one sequence in one step")
    add("--max-mixed-tokens", type=positive, metavar="N", help="token budget of a step in which sequences decode")
    add("--max-num-queued-reqs", type=positive, metavar="N", help="waiting requests before 429 ({default})")
    add("--scheduling-policy", choices=("fcfs", "priority"), help="order of the queue ({default})")
    add("--max-logprobs", type=at_least(0), metavar="N", help="most alternatives per token ({default})")
    add("--seed", type=int, metavar="N", help="base of the seeds of requests that set none ({default})")

    add = _adder(parser, "machine and memory", EngineConfig)
    add("--device", choices=("cpu", "cuda"), help="where the model runs ({default})")
    add("--threads", type=positive, metavar="N", help="of the CPU backend (default: the processors it may use)")
    add(
        "--batch-invariant",
        action="store_true",
        help="give a request the same tokens in any batch (always so on the CPU)",
    )
    add(
        "--gemm-strategy",
        choices=("cutlass", "cublas", "hybrid"),
        help="CUDA: products by rvllm's own kernels, by cuBLASLt (the extra rvllm[cublas]), or on Hopper by the former"
        " for few tokens and the latter for more ({default})",
    )
    add("--memory", type=size_bytes, metavar="SIZE", help="budget for everything, such as 24GiB")
    add(
        "--gpu-memory-utilization",
        type=float,
        metavar="SHARE",
        help="of the GPU's memory, for everything (default: 0.9)",
    )
    add("--gpu-memory-reserve-gb", type=float, metavar="GIB", help="of the GPU's free memory, to leave to others")
    add("--kv-cache-dtype", type=_dtype, metavar="TYPE", help="auto (as the weights), float32, float16, bfloat16")
    add("--block-size", type=positive, metavar="N", help="tokens of one KV block ({default})")
    add(
        *("--num-blocks", "--num-gpu-blocks", "--num-gpu-blocks-override"),
        type=positive,
        metavar="N",
        help="blocks of the KV cache (default: what fits)",
    )
    add(
        "--num-cpu-blocks",
        type=at_least(0),
        metavar="N",
        help="blocks of host memory for what the KV cache has no room to keep ({default})",
    )
    add(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        help="reuse the KV blocks of equal prompt beginnings (default: on)",
    )


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that make ServeOptions; see serve_options()."""
    add = _adder(parser, "server", ServeOptions)
    add("--host", metavar="ADDRESS", help="address to listen on ({default})")
    add("--port", type=port, metavar="N", help="port to listen on; 0: any ({default})")
    add("--uds", metavar="PATH", help="listen on a Unix socket instead")
    add("--api-key", action="append", type=not_empty, metavar="KEY", help="require this bearer token; may be repeated")
    add(
        "--served-model-name",
        nargs="+",
        type=not_empty,
        metavar="NAME",
        help="names of the model in the API (default: MODEL)",
    )
    add(
        "--allowed-origins",
        type=text_list,
        metavar="LIST",
        help='origins whose pages may call the server from a browser, a JSON list (default: ["*"])',
    )
    add("--strict-params", action="store_true", help="refuse unknown request fields instead of ignoring them")
    add("--trust-request-chat-template", action="store_true", help="allow chat_template in requests")
    add("--shutdown-timeout", type=seconds, metavar="S", help="time for running requests after SIGTERM ({default})")
    add = _adder(parser, "logs and figures", ServeOptions)
    add("--log-level", choices=("debug", "info", "warning", "error"), help="how much is logged ({default})")
    add("--disable-log-stats", action="store_true", help="no line about the engine every ten seconds")
    add("--enable-per-request-metrics", action="store_true", help="tell the times of each request in its answer")


def _adder(parser: argparse.ArgumentParser, title: str, config: type) -> Callable[..., None]:
    """Return add_argument of a new group; "{default}" in a help text becomes the default in `config`."""
    group = parser.add_argument_group(title)
    by_name = {f.name: f for f in fields(config)}

    def add(*names: str, help: str, **kwargs: Any) -> None:
        if "{default}" in help:
            name = kwargs.get("dest", names[0].lstrip("-").replace("-", "_"))
            help = help.format(default=f"default: {_default(by_name[name])}")
        kwargs.setdefault("default", None)
        if kwargs.get("action") == "store_true":
            kwargs["default"] = False
        group.add_argument(*names, help=help, **kwargs)

    return add


def _default(field: Field[Any]) -> Any:
    return f"{field.default:g}" if isinstance(field.default, float) else field.default


def _dtype(text: str) -> str:
    if text.startswith(("fp8", "int8", "nvfp4")):
        raise argparse.ArgumentTypeError(f"{text} is not supported yet; use auto, float32, float16 or bfloat16")
    if text not in _DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, float32, float16, bfloat16")
    return _DTYPES[text]


# ---- flags of the reference that are not obeyed ------------------------------------------------------------

_NO_VALUE = object()
_LATER = "is not supported yet"
# Flag: (values that ask for what happens anyway, why the rest is refused).
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "--tensor-parallel-size": (("1",), f"above 1 {_LATER}"),
    "-tp": (("1",), f"above 1 {_LATER}"),
    "--pipeline-parallel-size": (("1",), f"above 1 {_LATER}"),
    "-pp": (("1",), f"above 1 {_LATER}"),
    "--data-parallel-size": (("1",), "above 1 is not supported; run several servers"),
    "--quantization": ((), _LATER),
    "-q": ((), _LATER),
    "--cpu-offload-gb": (("0",), "is not supported"),
    "--swap-space": (("0",), "is not supported: use --num-cpu-blocks"),
    "--target-itl-ms": ((), _LATER),
    "--enable-auto-tool-choice": ((), _LATER),
    "--tool-call-parser": ((), _LATER),
    "--reasoning-parser": ((), _LATER),
    "--enable-lora": ((), _LATER),
    "--lora-modules": ((), _LATER),
    "--speculative-config": ((), _LATER),
    "--limit-mm-per-prompt": ((), "is not supported: models here read text only"),
    "--trust-remote-code": ((), "is not supported: code in a model directory is never run; leave it out"),
    "--no-enable-chunked-prefill": ((), "is not supported: prefill is always chunked"),
    "--enable-log-requests": ((), "is not supported: requests are not logged"),
    "--allow-credentials": ((), "is not supported: the API has no cookies"),
    "--allowed-methods": (('["*"]',), "is not supported: all that the API takes are allowed"),
    "--allowed-headers": (('["*"]',), "is not supported: all are allowed"),
    "--ssl-keyfile": ((), "is not supported: put a proxy in front for TLS"),
    "--ssl-certfile": ((), "is not supported: put a proxy in front for TLS"),
    "--root-path": ((), "is not supported: let the proxy strip the path"),
    # Obeyed, because there is nothing else: on a CPU nothing is captured, and so on.
    "--enforce-eager": ((_NO_VALUE,), ""),
    "--enable-chunked-prefill": ((_NO_VALUE,), ""),
    "--disable-log-requests": ((_NO_VALUE,), ""),
    "--no-enable-log-requests": ((_NO_VALUE,), ""),
    "--disable-uvicorn-access-log": ((_NO_VALUE,), ""),
    "--enable-prompt-tokens-details": ((_NO_VALUE,), ""),
}


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        flag = option_string or self.option_strings[0]
        harmless, reason = REFUSED[flag]
        if (_NO_VALUE if values in (None, []) else values) not in harmless:
            raise ConfigError(f"{flag} {reason}")


def add_refused_flags(parser: argparse.ArgumentParser) -> None:
    """Make the parser know the flags of REFUSED; help does not show them."""
    for flag, (harmless, _) in REFUSED.items():
        nargs = 0 if harmless == (_NO_VALUE,) else "?"
        parser.add_argument(flag, action=_Refuse, nargs=nargs, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)


# ---- from flags to settings --------------------------------------------------------------------------------


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """Return the EngineConfig that parsed flags describe, or raise ConfigError."""
    model = args.model or args.model_flag
    if args.model and args.model_flag and args.model != args.model_flag:
        raise ConfigError(f"two models are given: {args.model} and --model {args.model_flag}")
    names: Sequence[str] = getattr(args, "served_model_name", None) or ()  # the server's flag
    if model is None:
        swallowed = next((name for name in names if (Path(name) / "config.json").exists()), None)
        if swallowed is not None:
            raise ConfigError(f"--served-model-name took {swallowed} for a name: put MODEL before the flags")
        model = str(DEMO_MODEL)
        args.served_model_name = names = names or ["rvllm-demo"]
    return _build(EngineConfig, args, model=model, served_model_name=names[0] if names else None)


def serve_options(args: argparse.Namespace) -> ServeOptions:
    """Return the ServeOptions that parsed flags describe."""
    return _build(ServeOptions, args)


def _build(kind: type[T], args: argparse.Namespace, **given: Any) -> T:
    values = {f.name: getattr(args, f.name, None) for f in fields(kind)} | given
    return kind(**{name: value for name, value in values.items() if value is not None})

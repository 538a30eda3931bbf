"""The command line: serve, benchmark, plan, tune, info. Each verb imports what it needs when it runs."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from rvllm import __version__
from rvllm.errors import RvllmError

EXIT_ERROR = 2

Verb = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 with one line on stderr when something cannot be done."""
    try:
        args = _parser().parse_args(argv)
        return args.run(args)
    except RvllmError as e:
        print(f"rvllm: error: {e}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `rvllm plan MODEL | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """Says one line when the command line is wrong, and accepts no abbreviations."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=_format)

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_ERROR, f"rvllm: error: {message}; see `{self.prog} --help`\n")


class _VerbParser(_Parser):
    """Says what it does not know under its own name, and what was probably meant."""

    def parse_known_args(self, args=None, namespace=None):
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            import difflib

            flag = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, 1, 0.8)
            hint = f" (did you mean {near[0]}?)" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return namespace, unknown


def _format(prog: str) -> argparse.HelpFormatter:
    return _HelpFormatter(prog, max_help_position=34, width=min(shutil.get_terminal_size().columns, 120) - 2)


class _HelpFormatter(argparse.HelpFormatter):
    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # whose indentation argparse forgets before Python 3.13
            longest = max(len(name) for name in action.choices)
            self._action_max_length = max(self._action_max_length, longest + 2 * self._indent_increment)


def _parser() -> argparse.ArgumentParser:
    from rvllm import flags

    parser = _Parser(prog="rvllm", description="Serve language models over the OpenAI API.")
    parser.add_argument("--version", action="version", version=f"rvllm {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_VerbParser)

    def verb(name: str, run: Verb, operands: str, help: str, description: str | None = None) -> argparse.ArgumentParser:
        usage = f"rvllm {name} {operands}".rstrip()
        sub = verbs.add_parser(name, usage=usage, help=help, description=description or f"{help[0].upper()}{help[1:]}.")
        sub.set_defaults(run=run)
        return sub

    sub = verb(
        "serve",
        _serve,
        "[MODEL] [flags]",
        "serve a model over the OpenAI API",
        "Serve MODEL over the OpenAI API; without MODEL, the demo model that comes with rvllm.",
    )
    flags.add_engine_flags(sub)
    flags.add_server_flags(sub)
    flags.add_refused_flags(sub)

    sub = verb("benchmark", _benchmark, "[MODEL] [flags]", "measure tokens per second of a model, without HTTP")
    group = sub.add_argument_group("benchmark")
    group.add_argument(
        "--n", default="1,4,16", metavar="LIST", help="batches; 16x2048: 16 prompts of 2048 tokens (default: 1,4,16)"
    )
    positive = flags.at_least(1)
    group.add_argument("--prompt-len", type=positive, default=32, metavar="N", help="tokens (default: 32)")
    group.add_argument("--output-len", type=positive, default=256, metavar="N", help="tokens (default: 256)")
    group.add_argument("--repeat", type=positive, default=3, metavar="N", help="timed rounds (default: 3)")
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: 0)")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="default: 1")
    group.add_argument("--json", action="store_true", help="one JSON object per row")
    flags.add_engine_flags(sub)
    flags.add_refused_flags(sub)

    sub = verb(
        "plan",
        _plan,
        "MODEL [flags]",
        "show a model's ops, kernels and memory without loading it",
        "Show the ops, kernels and memory of MODEL without loading its weights: its config.json is enough.",
    )
    group = sub.add_argument_group("a GPU that is not here")
    group.add_argument("--gpu-memory", type=flags.size_bytes, metavar="SIZE", help="plan for this much, such as 24GiB")
    group.add_argument(
        "--gpu-arch", type=_compute_capability, default=90, metavar="CC", help="such as 8.9 (default: 9.0)"
    )
    flags.add_engine_flags(sub)
    flags.add_refused_flags(sub)

    sub = verb(
        "tune",
        _tune,
        "MODEL --device cuda [flags]",
        "measure the kernels of a model's products on this GPU",
        "Measure the kernels of MODEL's products on this GPU; later starts use those that are faster than the built-in"
        " choice. Its config.json is enough.",
    )
    flags.add_engine_flags(sub)
    flags.add_refused_flags(sub)

    verb("info", _info, "", "show this machine, the backends and their ops")
    return parser


def _compute_capability(text: str) -> int:
    """Argparse type: 9.0, 90 or sm_90."""
    digits = text.removeprefix("sm_").replace(".", "").rstrip("a")
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a compute capability such as 8.9")
    return int(digits)


def _serve(args: argparse.Namespace) -> int:
    from rvllm import flags

    config, options = flags.engine_config(args), flags.serve_options(args)

    gc.disable()  # until the server is ready: what starting makes stays, and looking at it takes 50 ms
    with _no_certificates():
        from rvllm.serve import server

    is_demo = config.model == str(flags.DEMO_MODEL)
    return server.run(config, options, _print_curl if is_demo else None)


@contextlib.contextmanager
def _no_certificates() -> Iterator[None]:
    """Keep aiohttp's client, which a server does not use, from reading the system's certificates on import: 30 ms."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _print_curl(url: str) -> None:
    where = f"--unix-socket {url.removeprefix('unix:')} http://localhost" if url.startswith("unix:") else url
    where = where.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")
    print(
        "This is the demo model. Try it:\n\n"
        f"  curl {where}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        """    -d '{"messages": [{"role": "user", "content": "Hello, who are you?"}]}'\n""",
        flush=True,
    )


def _benchmark(args: argparse.Namespace) -> int:
    from rvllm import flags

    config = flags.engine_config(args)

    from rvllm.benchmark import parse_batches, run
    from rvllm.progress import ProgressBar

    batches = parse_batches(args.n, args.prompt_len)
    with ProgressBar() as bar:
        return run(
            config,
            batches=batches,
            output_len=args.output_len,
            repeat=args.repeat,
            temperature=args.temperature,
            top_p=args.top_p,
            as_json=args.json,
            progress=bar,
        )


def _plan(args: argparse.Namespace) -> int:
    from rvllm import flags

    if not args.model and not args.model_flag:
        raise RvllmError("plan needs a MODEL: a directory with a config.json")
    config = flags.engine_config(args)

    from rvllm.loader import plan_text

    print(plan_text(config, args.gpu_memory, args.gpu_arch))
    return 0


def _tune(args: argparse.Namespace) -> int:
    from rvllm import flags

    if not args.model and not args.model_flag:
        raise RvllmError("tune needs a MODEL: a directory with a config.json")
    config = flags.engine_config(args)

    from rvllm.progress import ProgressBar
    from rvllm.tune import run

    with ProgressBar() as bar:
        text = run(config, bar)
    print(text)
    return 0


def _info(args: argparse.Namespace) -> int:
    from rvllm.info import text

    print(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

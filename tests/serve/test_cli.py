"""The command line: its flags, its errors, and how little it imports."""

import argparse
import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import rvllm
from rvllm import flags
from rvllm.cli import _parser, main
from rvllm.engine_config import EngineConfig
from rvllm.flags import REFUSED, size_bytes
from rvllm.serve.options import ServeOptions


def _serve_args(*argv: str):
    return _parser().parse_args(["serve", *argv])


def test_help_imports_nothing_heavy_and_is_quick():
    code = "import sys\nfrom rvllm.cli import main\ntry: main(['serve', '--help'])\n"
    code += "except SystemExit: print(*{m.partition('.')[0] for m in sys.modules}, sep='\\n')"
    used = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert not {"numpy", "aiohttp", "msgspec", "tokenizers", "asyncio", "jinja2", "logging"} & set(out.splitlines())
    assert min(used) < 0.2  # seconds of CPU: a busy machine does not stretch them


@pytest.mark.parametrize("verb", ["serve", "benchmark", "plan", "tune", "info"])
def test_help_of_every_verb(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"usage: rvllm {verb}" in capsys.readouterr().out


def test_defaults_are_those_of_the_dataclasses():
    args = _serve_args("some/model")
    assert flags.engine_config(args) == EngineConfig(model="some/model")
    assert flags.serve_options(args) == ServeOptions()


def test_every_engine_setting_has_a_flag_or_is_internal():
    args = vars(_serve_args())
    assert {f.name for f in fields(EngineConfig)} - set(args) == {"pipeline_depth"}
    assert {f.name for f in fields(ServeOptions)} - set(args) == {"max_body_bytes", "max_unsent_bytes"}


def test_flags_become_settings():
    argv = "--model m --max-model-len 128 --num-gpu-blocks-override 7 --no-enable-prefix-caching --dtype half"
    argv += " --memory 1.5GiB --served-model-name a b --api-key k1 --api-key k2 --port 0 --shutdown-timeout 2.5"
    args = _serve_args(*argv.split())
    config, options = flags.engine_config(args), flags.serve_options(args)
    assert config == EngineConfig(
        model="m",
        max_model_len=128,
        num_blocks=7,
        enable_prefix_caching=False,
        dtype="float16",
        memory=3 << 29,
        served_model_name="a",
    )
    assert options == ServeOptions(served_model_name=["a", "b"], api_key=["k1", "k2"], port=0, shutdown_timeout=2.5)


def test_without_a_model_the_demo_is_served():
    args = _serve_args()
    config = flags.engine_config(args)
    assert config.model == str(flags.DEMO_MODEL)
    assert flags.engine_config(_parser().parse_args(["benchmark"])).model == config.model
    assert flags.serve_options(args).served_model_name == [config.served_model_name]


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_that_are_not_supported_are_refused_by_name(flag, capsys):
    harmless, reason = REFUSED[flag]
    for value in harmless:
        args = _serve_args(flag, *([value] if isinstance(value, str) else []), "m")
        assert flags.engine_config(args) == EngineConfig(model="m")
    if reason:
        assert main(["serve", flag, "17"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"rvllm: error: {flag} ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["serve", "--port", "0", "--gpu-memory-utilization", "0.5"], "--gpu-memory-utilization needs --device cuda"),
        (["serve", "a", "--model", "b"], "two models are given"),
        (["plan"], "plan needs a MODEL"),
        (["benchmark", "--n", "1,x"], "--n '1,x' is not a list"),
        (["benchmark", "--n", "0"], "--n '0' is not a list"),
        (["benchmark", "--n", "9", "--max-num-seqs", "4", "--max-num-queued-reqs", "4"], "--n 9: the engine takes 8"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(argv, sentence, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_model_that_was_taken_for_a_name_is_not_replaced_by_the_demo(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert main(["serve", "--served-model-name", "mine", str(tmp_path)]) == 2
    assert f"--served-model-name took {tmp_path} for a name: put MODEL before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "VERB"),
        (["server"], "invalid choice: 'server'"),
        (["serve", "--max-model"], "--max-model"),  # no abbreviations
        (["serve", "--port", "70000"], "70000 is not a port"),
        (["serve", "--max-num-seqs", "0"], "0 is below 1"),
        (["serve", "--max-num-seqs", "many"], "'many' is not a whole number"),
        (["serve", "--memory", "lots"], "'lots' is not a size"),
        (["serve", "--kv-cache-dtype", "fp8"], "fp8 is not supported yet"),
        (["serve", "--dtype", "int3"], "'int3' is not one of"),
        (["serve", "--shutdown-timeout", "-1"], "'-1' is not a number of seconds"),
        (["serve", "--allowed-origins", "*"], "'*' is not a JSON list of texts"),
        (["serve", "--api-key", ""], "argument --api-key: is empty"),
        (["serve", "--served-model-name", "a", ""], "argument --served-model-name: is empty"),
        (["serve", "--portt", "1"], "--portt (did you mean --port?); see `rvllm serve --help`"),
        (["info", "a", "b"], "unrecognized arguments: a b; see `rvllm info --help`"),
    ],
)
def test_wrong_command_lines_are_one_line_and_exit_code_2(argv, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5", 5),
        ("2k", 2048),
        ("2KiB", 2048),
        ("2kB", 2000),
        ("24G", 24 << 30),
        ("24 GB", 24 * 10**9),
        ("0.5m", 1 << 19),
    ],
)
def test_sizes(text, size):
    assert size_bytes(text) == size


def test_flags_that_messages_name_exist():
    parsers = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)).choices.values()
    known = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    known |= {"--unix-socket", "--local-dir", "--version"}  # of curl, of hf, and of the main parser
    for file in Path(rvllm.__file__).parent.rglob("*.py"):
        named = set(re.findall(r"(?<![-\w])--[a-z][a-z0-9-]+", file.read_text()))
        assert named <= known, file


def test_help_has_a_line_per_verb(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    verbs = capsys.readouterr().out.split("VERB\n")[1].splitlines()
    assert [line.split()[0] for line in verbs] == ["serve", "benchmark", "plan", "tune", "info"]
    assert all(len(line.split()) > 4 for line in verbs)


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("rvllm ")

"""The file of measured kernel choices: where it is, what makes it another one, what happens to one that is not right.

A GPU that is planned for will do: its choices are a pure function too.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rvllm import kernel_table, tune
from rvllm._native.device import Device
from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError
from rvllm.loader import plan_text

FEW = "bf16 4608 3584 1 64 linear_split 0 4 6 8.10 8.90"
MANY = "bf16 4608 3584 193 256 linear_large 128 1 0 16.00 17.00"


def gpu(arch: int = 90, **options: str) -> Device:
    try:
        return Device("cuda", plan_arch=arch, plan_memory=1 << 34, **options)
    except ValueError as e:
        pytest.skip(str(e))


@pytest.fixture
def cache(monkeypatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rvllm"


def test_without_a_file_nothing_happens(cache: Path, caplog) -> None:
    kernel_table.use_table(gpu(), "cutlass")
    assert not cache.exists() and not caplog.records


def test_the_name_is_a_hash_of_what_the_choices_are_valid_for(cache: Path, monkeypatch, tmp_path: Path) -> None:
    paths = {kernel_table.table_path(gpu(arch), s) for arch in (80, 90) for s in ("cutlass", "hybrid")}
    build = tmp_path / "build"
    build.mkdir()
    (build / "librvllm_cuda.so").write_bytes(b"another build")
    monkeypatch.setattr(kernel_table._native, "__file__", str(build / "__init__.py"))
    paths.add(kernel_table.table_path(gpu(), "cutlass"))
    assert len(paths) == 5
    assert {p.parent for p in paths} == {cache}


def test_what_is_written_is_read(cache: Path, caplog) -> None:
    device = gpu()
    path = kernel_table.write_table(device, "cutlass", {"bf16 4608 3584": [MANY, FEW]})
    with caplog.at_level(logging.INFO, "rvllm"):
        kernel_table.use_table(gpu(), "cutlass")
    assert caplog.messages == [f"measured kernel choices: 2 from {path}"]
    assert [p.name for p in cache.iterdir()] == [path.name], "no temporary file is left"


def test_other_weights_keep_their_entries(cache: Path) -> None:
    other = FEW.replace("4608", "3584")
    kernel_table.write_table(gpu(), "cutlass", {"bf16 4608 3584": [FEW]})
    kernel_table.write_table(gpu(), "cutlass", {"bf16 3584 3584": [other]})
    path = kernel_table.write_table(gpu(), "cutlass", {"bf16 4608 3584": []})
    assert [line for line in path.read_text().splitlines() if line[0] != "#"] == [other, "end 1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{FEW}\n{FEW.replace(' 4 6 ', ' 9 6 ')}\nend 2\n".encode(), "line 2 (bf16 4608 3584 1 64 linear_split 0 9 6"),
        (f"{FEW}\n".encode(), "its end is missing"),
        (b"\xff\xfe", "codec"),
    ],
)
def test_a_file_that_is_not_right_is_ignored_and_replaced(cache: Path, caplog, text: bytes, words: str) -> None:
    path = kernel_table.table_path(gpu(), "cutlass")
    path.parent.mkdir()
    path.write_bytes(text)
    with caplog.at_level(logging.INFO, "rvllm"):
        kernel_table.use_table(gpu(), "cutlass")
    assert len(caplog.messages) == 1 and str(path) in caplog.text and words in caplog.text
    kernel_table.write_table(gpu(), "cutlass", {"bf16 4608 3584": [MANY]})
    assert path.read_text().endswith(f"{MANY}\nend 1\n")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"gemm_strategy": "cublas"}, "--gemm-strategy cublas needs --device cuda"),
        ({"gemm_strategy": "triton", "device": "cuda"}, "must be one of cutlass, cublas, hybrid, not triton"),
        (
            {"gemm_strategy": "hybrid", "device": "cuda", "batch_invariant": True},
            "--batch-invariant needs rvllm's own kernels: leave out --gemm-strategy hybrid",
        ),
    ],
)
def test_strategies_that_cannot_be_are_refused(tmp_path: Path, flags: dict, words: str) -> None:
    import tiny

    with pytest.raises(ConfigError, match=words):
        plan_text(EngineConfig(model=tiny.write_config(tmp_path, tiny.LLAMA), **flags))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"device": "cpu"}, "tune needs --device cuda"),
        ({"device": "cuda", "batch_invariant": True}, "leave it out"),
        ({"device": "cuda", "gemm_strategy": "cublas"}, "leaves nothing to choose"),
    ],
)
def test_tune_refuses_what_has_no_choices(flags: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tune.run(EngineConfig(model="no such directory", **flags))


def test_the_cpu_has_no_choices() -> None:
    with pytest.raises(ValueError, match="cpu have nothing to choose"):
        Device("cpu", 1).use_choices("end 0\n")


def test_a_plan_says_whose_kernels_run(tmp_path: Path) -> None:
    import tiny

    gpu()
    model = tiny.write_config(tmp_path, tiny.LLAMA | {"head_dim": 64, "dtype": "bfloat16"})
    for strategy, few, many in (
        ("cutlass", "linear_wide", "linear_large"),
        ("cublas", "cublasLt", "cublasLt"),
        ("hybrid", "linear_wide", "cublasLt"),
    ):
        config = EngineConfig(model=model, device="cuda", gemm_strategy=strategy)
        lines = plan_text(config, 1 << 34).splitlines()
        assert any(line.startswith("64 ") and few in line for line in lines)
        assert any(line.startswith("2048 ") and many in line for line in lines)

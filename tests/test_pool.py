"""The thread pool, compiled alone: indices, turns, parking, fork; again under ThreadSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILER = os.environ.get("CXX") or shutil.which("c++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


def build(target: Path, *flags: str) -> Path:
    sources = [ROOT / "tests/native/pool_stress.cpp", ROOT / "native/cpu/pool.cpp", ROOT / "native/cpu/cpus.cpp"]
    command = [COMPILER, "-std=c++17", "-O1", "-g", f"-I{ROOT / 'native'}", *flags, *sources, "-pthread", "-o", target]
    subprocess.run(list(map(str, command)), check=True, timeout=120)
    return target


def test_pool(tmp_path: Path) -> None:
    program = build(tmp_path / "pool")
    run = subprocess.run([program, "fork"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert 1 <= int(run.stdout) <= len(os.sched_getaffinity(0))


def test_pool_follows_affinity(tmp_path: Path) -> None:
    program = build(tmp_path / "pool")
    cpu = min(os.sched_getaffinity(0))
    run = subprocess.run(
        [program], capture_output=True, text=True, timeout=60, preexec_fn=lambda: os.sched_setaffinity(0, {cpu})
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == 1


def test_pool_has_no_data_race(tmp_path: Path) -> None:
    program = build(tmp_path / "pool", "-fsanitize=thread")
    # No fork: ThreadSanitizer cannot start threads in the child of a process with threads.
    run = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr

"""The build's own rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("Cython")
CYTHONIZE = Path(__file__).parent.parent / "cmake" / "cythonize.py"

SOURCE = """
cdef int f() {}:
    return 1

def g():
    with nogil:
        f()
"""


@pytest.mark.parametrize("signature,ok", [("noexcept nogil", True), ("except -1 nogil", True), ("nogil", False)])
def test_build_fails_when_a_function_would_take_the_gil(tmp_path, signature, ok):
    source = tmp_path / "module.pyx"
    source.write_text(
        SOURCE.format(signature)
        if ok
        else SOURCE.format(signature).replace("cdef int", "cdef void").replace("return 1", "pass")
    )
    run = subprocess.run(
        [sys.executable, str(CYTHONIZE), "-3", "--cplus", str(source), "-o", str(tmp_path / "module.cpp")],
        capture_output=True,
        text=True,
    )
    assert (run.returncode == 0) == ok, run.stderr
    if not ok:
        assert "must not take the GIL" in run.stderr

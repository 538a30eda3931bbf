"""Try an installed rvllm: the sampling primitives, the offline class, and the server with its demo model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request


def sampling() -> None:
    """Draw tokens with nothing but NumPy."""
    import numpy as np

    from rvllm import sampling

    logits = np.zeros((2, 100), dtype=np.float32)
    logits[:, 7] = 50
    assert sampling.sample_batch(logits, temperature=1.0, seed=1).tolist() == [7, 7]
    assert "aiohttp" not in sys.modules


def serve() -> None:
    """Start the server on a free port and ask it something."""
    command = [sys.executable, "-m", "rvllm.serve", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            url = next(m[0] for line in server.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+", line)))
            body = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "temperature": 0}
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)["choices"][0]["message"]["content"]
            assert "7" in answer, answer
            print(f"served: {answer}")
        finally:
            server.terminate()
    assert server.returncode == 0, f"the server ended with {server.returncode}"


if __name__ == "__main__":
    sampling()
    serve()

"""The OpenAI-compatible HTTP server: `python -m rvllm.serve` or `rvllm serve`."""

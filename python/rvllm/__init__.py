"""rvllm: an LLM inference engine and OpenAI-compatible server in one process, without PyTorch."""

__version__ = "0.1.0"

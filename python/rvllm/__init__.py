"""rvllm: an LLM inference engine and OpenAI-compatible server in one process, without PyTorch.

    from rvllm import LLM, SamplingParams
    print(LLM("path/to/model").generate("Hello", SamplingParams(max_tokens=32))[0].choices[0].text)

`rvllm.sampling` is usable alone and needs numpy only. Nothing is imported before it is used.
"""

__version__ = "0.1.0"

__all__ = ["LLM", "EngineConfig", "SamplingParams", "__version__"]

_LAZY = {"LLM": "rvllm.llm", "SamplingParams": "rvllm.request", "EngineConfig": "rvllm.engine_config"}


def __getattr__(name: str):
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rvllm' has no attribute {name!r}")

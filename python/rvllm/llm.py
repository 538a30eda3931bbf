"""Run a model from a plain program, without a server: LLM(model).generate(prompts, params)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import index
from typing import Any

import msgspec

from rvllm.engine import Engine, Progress
from rvllm.engine_config import EngineConfig
from rvllm.errors import ConfigError, InvalidRequestError
from rvllm.handle import RequestHandle
from rvllm.request import Chunk, SamplingParams, TokenLogprob


@dataclass(slots=True)
class Completion:
    """One choice of an answer."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def extend(self, chunk: Chunk) -> None:
        """Append what is new about this choice."""
        self.text += chunk.text
        self.token_ids += chunk.token_ids
        if chunk.logprobs is not None:
            self.logprobs = (self.logprobs or []) + chunk.logprobs
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
            self.stop_reason = chunk.stop_reason


@dataclass(slots=True)
class Output:
    """The answer to one prompt: its token ids and its choices."""

    prompt_token_ids: list[int]
    choices: list[Completion]
    handle: RequestHandle | None = None  # its times and prompt log-probabilities, once submitted


class LLM:
    """A model and its engine, used synchronously.

    Keyword arguments are fields of EngineConfig; `progress` and `skip_tokenizer` as in Engine.load. Close it, or use it
    as a context manager, to stop the engine thread.
    """

    def __init__(self, model: str, *, progress: Progress | None = None, skip_tokenizer: bool = False, **settings):
        self.engine = Engine.load(EngineConfig(model=model, **settings), progress, skip_tokenizer=skip_tokenizer)

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    def generate(
        self, prompts: Sequence[str | list[int]] | str, params: SamplingParams | Sequence[SamplingParams] | None = None
    ) -> list[Output]:
        """Complete `prompts` (texts or token ids, all at once) and return their outputs in order.

        `params` is one SamplingParams for all, or one each. Raises InvalidRequestError for the first prompt that cannot
        be served; none is started then.
        """
        if isinstance(prompts, str):
            prompts = [prompts]
        if params is None or isinstance(params, SamplingParams):
            many = [params or SamplingParams()] * len(prompts)
        else:
            many = list(params)
        if len(many) != len(prompts):
            raise ConfigError(f"{len(prompts)} prompts but {len(many)} sampling parameters")
        token_ids = [self._tokens(p) for p in prompts]
        return self._run(token_ids, [_checked(p) for p in many])

    def chat(
        self, messages: list[dict] | list[list[dict]], params: SamplingParams | None = None, **template_args
    ) -> list[Output]:
        """Answer one conversation, or several, through the model's chat template."""
        engine = self.engine
        if not isinstance(messages, list) or not all(isinstance(m, (dict, list)) for m in messages):
            raise InvalidRequestError("messages must be a list of {'role': ..., 'content': ...}", "messages")
        if engine.chat_template is None:
            raise ConfigError("this model has no chat template; pass chat_template=FILE")
        conversations = [messages] if messages and isinstance(messages[0], dict) else messages
        texts = [engine.chat_template.render(m, **template_args) for m in conversations]
        token_ids = [engine.tokenizer.encode(t, add_special_tokens=False) for t in texts]
        return self._run(token_ids, [_checked(params or SamplingParams(max_tokens=None))] * len(token_ids))

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        if not isinstance(prompt, str):
            try:
                return [index(token_id) for token_id in prompt]
            except TypeError:
                raise InvalidRequestError("a prompt must be a text or a list of token ids", "prompt") from None
        if self.engine.tokenizer is None:
            raise ConfigError("text prompts need a tokenizer, and this engine has none; pass token ids")
        return self.engine.tokenizer.encode(prompt)

    def _run(self, token_ids: list[list[int]], params: list[SamplingParams]) -> list[Output]:
        outputs = [Output(ids, [Completion(i) for i in range(p.n)]) for ids, p in zip(token_ids, params, strict=True)]
        left = 0

        def sink(output: Output):
            def on_update(handle: RequestHandle, chunks: list[Chunk]) -> None:
                nonlocal left
                for chunk in chunks:
                    output.choices[chunk.index].extend(chunk)
                left -= handle.finished

            return on_update

        try:
            todo = zip(outputs, params, strict=True)
            while True:
                with self.engine.together():
                    for output, p in islice(todo, self.engine.config.max_num_queued_reqs - left):
                        output.handle = self.engine.submit(output.prompt_token_ids, p, on_update=sink(output))
                        left += 1
                if not left:
                    break
                self.engine.poll()
        except BaseException:
            for output in outputs:
                if output.handle is not None and not output.handle.finished:
                    self.engine.cancel(output.handle)
            raise
        return outputs


def _checked(params: SamplingParams) -> SamplingParams:
    """Return `params` after checking the types of its fields, which a Struct made by hand does not."""
    if not isinstance(params, SamplingParams):
        raise InvalidRequestError(f"params must be SamplingParams, not {type(params).__name__}", "params")
    try:
        return msgspec.convert(msgspec.to_builtins(params, enc_hook=_plain), SamplingParams)
    except (msgspec.ValidationError, TypeError) as e:
        raise InvalidRequestError(f"SamplingParams: {e}".replace("`$.", "`")) from None


def _plain(value: Any) -> Any:
    """Return NumPy's scalars as Python's."""
    if not hasattr(value, "item"):
        raise TypeError(f"{value!r} is not a number, a text or a list of them")
    return value.item()

"""Log-probabilities in the shapes of the two APIs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rvllm.request import TokenLogprob
from rvllm.serve.responses import (
    ChatLogprob,
    ChatLogprobs,
    CompletionLogprobs,
    PromptLogprob,
    PromptLogprobs,
    TopLogprob,
)

# JSON has no infinities: this is what the reference sends for a token that cannot be drawn.
LOWEST = -9999.0


class TokenNames(Protocol):
    """What is needed of a tokenizer."""

    def token_str(self, token_id: int) -> str: ...

    def token_bytes(self, token_id: int) -> bytes: ...


class LogprobFormat:
    """Renders TokenLogprobs; `as_ids` names tokens "token_id:N" instead of by their text."""

    def __init__(self, tokenizer: TokenNames, n_top: int, as_ids: bool = False):
        self._tokenizer = tokenizer
        self._n_top = n_top
        self._as_ids = as_ids

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._as_ids else self._tokenizer.token_str(token)

    def completion(self, entries: Sequence[TokenLogprob | None], tokens: list[int], offset: int) -> CompletionLogprobs:
        """Render one entry per token; None (the first token of a prompt) has no figure. `offset` is in characters."""
        out = CompletionLogprobs([], [], [], [])
        for token, entry in zip(tokens, entries, strict=True):
            name = self._name(token)
            out.tokens.append(name)
            out.text_offset.append(offset)
            offset += len(self._tokenizer.token_str(token))
            if entry is None:
                out.token_logprobs.append(None)
                out.top_logprobs.append(None)
                continue
            logprob = max(entry.logprob, LOWEST)
            out.token_logprobs.append(logprob)
            top = {name: logprob}
            for other, value in entry.top[: self._n_top]:
                top.setdefault(self._name(other), max(value, LOWEST))
            out.top_logprobs.append(top)
        return out

    def chat(self, entries: list[TokenLogprob]) -> ChatLogprobs:
        """Render the content list of a chat choice."""
        return ChatLogprobs(
            [
                ChatLogprob(
                    self._name(e.token_id),
                    max(e.logprob, LOWEST),
                    list(self._tokenizer.token_bytes(e.token_id)),
                    [
                        TopLogprob(self._name(t), max(p, LOWEST), list(self._tokenizer.token_bytes(t)))
                        for t, p in e.top[: self._n_top]
                    ],
                )
                for e in entries
            ]
        )


def prompt_logprobs(tokenizer: TokenNames, entries: list[TokenLogprob | None], n_top: int) -> PromptLogprobs:
    """Render prompt log-probabilities: {token id: ...} per token, its own first; null for the first token."""
    out: PromptLogprobs = []
    for entry in entries:
        if entry is None:
            out.append(None)
            continue
        ranks = {str(entry.token_id): PromptLogprob(entry.logprob, entry.rank, tokenizer.token_str(entry.token_id))}
        for rank, (token, value) in enumerate(entry.top[:n_top], 1):
            ranks.setdefault(str(token), PromptLogprob(max(value, LOWEST), rank, tokenizer.token_str(token)))
        out.append(ranks)
    return out

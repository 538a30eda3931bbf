"""Detokenising token by token: equal to decoding all at once, whole characters only, stop strings across borders."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from rvllm.detokenizer import Detokenizer
from rvllm.stop_strings import StopMatcher, compile_stops
from rvllm.token_text import MAX_HELD_RUN_BYTES, FallbackText, Pieces
from rvllm.tokenizer import Tokenizer
from tiny_tokenizers import BUILDERS, SPECIAL, serialised

TEXT = "Hello there, Grüße! 日本 👩‍👩‍👧 ねえ <|im_start|>x\n\n  def f(): return 'é' <tool call> END"


@functools.cache
def load(kind: str) -> Tokenizer:
    return Tokenizer(Backend.from_str(serialised(kind)), {"bos_token": "<s>", "eos_token": "</s>"})


@functools.cache
def byte_ids(kind: str) -> dict[bytes, int]:
    """Return the tokens that are one byte; where bytes have tokens of their own, those."""
    tokenizer = load(kind)
    ids = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size) if len(tokenizer.token_bytes(i)) == 1}
    own = {bytes([b]): tokenizer.backend.token_to_id(f"<0x{b:02X}>") for b in range(256)}
    return ids if own[b"a"] is None else own


def cut(ids: list[int], rng: random.Random) -> list[list[int]]:
    chunks = []
    while ids:
        n = rng.choice((1, 1, 1, 2, 3, 8))
        chunks.append(ids[:n])
        ids = ids[n:]
    return chunks


def run(detokenizer: Detokenizer, chunks: list[list[int]]) -> list[str]:
    return [*map(detokenizer.push, chunks), detokenizer.finish()]


def random_ids(tokenizer: Tokenizer, rng: random.Random) -> list[int]:
    """Draw ids with long runs of byte tokens, specials and ids that the vocabulary lacks."""
    byte_like = [i for i in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.token_str(i)]
    real = tokenizer.encode(TEXT, add_special_tokens=False)
    special = sorted(tokenizer.special_ids)
    ids: list[int] = []
    while len(ids) < 60:
        kind = rng.randrange(6)
        if kind == 0 and byte_like:
            ids += rng.choices(byte_like, k=rng.randint(1, 12))
        elif kind == 1:
            ids += rng.choices([*special, tokenizer.vocab_size + 7], k=rng.randint(1, 3))
        elif kind == 2:
            start = rng.randrange(len(real))
            ids += real[start : start + rng.randint(1, 20)]
        else:
            ids += [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(1, 10))]
    return ids[: rng.randint(0, 60)]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("kind", BUILDERS)
def test_equals_full_decoding_of_random_tokens(kind: str, skip: bool) -> None:
    tokenizer = load(kind)
    rng = random.Random(kind)
    for _ in range(400):
        ids = random_ids(tokenizer, rng)
        detokenizer = tokenizer.detokenizer(skip_special_tokens=skip)
        parts = run(detokenizer, cut(ids, rng))
        assert "".join(parts) == tokenizer.backend.decode(ids, skip_special_tokens=skip), ids
        assert detokenizer.n_tokens == len(ids)
        assert detokenizer.stopped is None


@pytest.mark.parametrize("kind", ["demo", "byte_level", "llama2", "gemma"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_equals_full_decoding_of_bytes(kind: str, data: st.DataObject) -> None:
    """Near-valid UTF-8: every way a character can be cut short, overlong or out of range."""
    tokenizer = load(kind)
    ids_of = byte_ids(kind)
    byte = st.one_of(
        st.sampled_from([0x41, 0x80, 0xA0, 0x9F, 0xBF, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0x90, 0x8F, 0xFF]),
        st.integers(0, 255),
    )
    piece = st.one_of(byte.map(lambda b: bytes([b])), st.characters(codec="utf-8").map(str.encode), st.just(b""))
    ids: list[int] = []
    for chunk in data.draw(st.lists(piece, max_size=14)):
        # An empty piece stands for a token of text: it ends a run of byte tokens.
        ids += [ids_of[bytes([b])] for b in chunk] or [tokenizer.backend.token_to_id("e")]
        if len(ids) >= MAX_HELD_RUN_BYTES:
            break
    detokenizer = tokenizer.detokenizer()
    assert "".join(run(detokenizer, [[i] for i in ids])) == tokenizer.backend.decode(ids[:]), ids


@pytest.mark.parametrize("kind", ["demo", "byte_level", "llama2", "gemma"])
def test_never_half_a_character(kind: str) -> None:
    tokenizer = load(kind)
    ids = tokenizer.encode(TEXT * 3, add_special_tokens=False)
    parts = run(tokenizer.detokenizer(skip_special_tokens=False), [[i] for i in ids])
    assert not any("\ufffd" in part for part in parts)
    assert sum(map(bool, parts)) > len(ids) // 3  # it does stream


def test_unfinished_character_at_the_end() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("a 👩", add_special_tokens=False)[:-1]
    parts = run(tokenizer.detokenizer(), [[i] for i in ids])
    assert "\ufffd" not in "".join(parts[:-1])
    assert "".join(parts) == tokenizer.backend.decode(ids)
    assert parts[-1] == "\ufffd"


def test_long_byte_run_streams() -> None:
    tokenizer = load("llama2")
    text = "ကောင်းသောနေ့ပါခင်ဗျာ" * 4
    ids = tokenizer.encode("x" + text, add_special_tokens=False)
    parts = run(tokenizer.detokenizer(), [[i] for i in ids])
    assert "".join(parts) == "x" + text
    held = [len(part.encode()) for part in parts]
    assert max(held) <= MAX_HELD_RUN_BYTES
    assert sum(map(bool, parts)) > 4


def test_byte_runs_from_a_hand_made_table() -> None:
    table = {0: " a", 1: b"\xe2", 2: b"\x82", 3: b"\xac", 4: b"\n", 5: None}
    pieces = Pieces(table.get)

    def texts(*ids: int) -> list[str]:
        decoder = FallbackText(pieces, " ", 1)
        return [*map(decoder.push, ids), decoder.finish()]

    assert texts(0, 0) == ["a", " a", ""]
    assert texts(1, 2, 3, 0) == ["", "", "", "€ a", ""]
    assert texts(1, 5, 2, 3) == ["", "", "", "", "€"]
    assert texts(4, 4) == ["", "", "\n\n"]
    assert texts(4, 3, 4, 0) == ["", "\ufffd\ufffd", "\ufffd", " a", ""]
    assert texts(1, 2) == ["", "", "\ufffd\ufffd"]


@pytest.mark.parametrize("kind", ["demo", "llama2", "gemma", "byte_level", "unigram"])
def test_text_continues_the_prompt(kind: str) -> None:
    tokenizer = load(kind)
    whole = "The quick brown fox jumps over the lazy dog."
    ids = tokenizer.encode(whole)
    for n in range(1, len(ids)):
        before = tokenizer.decode(ids[:n])
        after = "".join(run(tokenizer.detokenizer(prompt_tail=ids[:n]), [ids[n:]]))
        assert before + after == tokenizer.decode(ids)


def test_first_word_keeps_its_space_after_a_prompt() -> None:
    tokenizer = load("llama2")
    world = tokenizer.encode("the", add_special_tokens=False)
    prompt = tokenizer.encode("Say:")
    assert tokenizer.token_str(world[0]).startswith(" ")
    assert "".join(run(tokenizer.detokenizer(prompt_tail=prompt), [world])) == " the"
    assert "".join(run(tokenizer.detokenizer(prompt_tail=prompt[:1]), [world])) == "the"  # only <s> came before
    assert "".join(run(tokenizer.detokenizer(), [world])) == "the"


@pytest.mark.parametrize("kind", ["byte_level", "llama2"])
def test_prompt_that_ends_inside_a_character(kind: str) -> None:
    tokenizer = load(kind)
    ids = tokenizer.encode("aa👩 b", add_special_tokens=False)
    for n in range(1, len(ids)):
        before = tokenizer.decode(ids[:n]).rstrip("\ufffd")
        after = "".join(run(tokenizer.detokenizer(prompt_tail=ids[:n]), [[i] for i in ids[n:]]))
        assert before + after == "aa👩 b"


def test_special_tokens_shown_or_skipped() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("<|im_start|>hi<|im_end|><tool call>", add_special_tokens=True)
    assert "".join(run(tokenizer.detokenizer(), [ids])) == "hi<tool call>"
    shown = "".join(run(tokenizer.detokenizer(skip_special_tokens=False), [ids]))
    assert shown == "<s><|im_start|>hi<|im_end|><tool call>"


def test_spaces_between_special_tokens() -> None:
    tokenizer = load("wordpiece")
    ids = [tokenizer.backend.token_to_id(name) for name in ("dog", "<s>", "</s>", "<tool call>", "fox")]

    def text(**flags: bool) -> str:
        return "".join(run(tokenizer.detokenizer(**flags), [[i] for i in ids]))

    assert text(skip_special_tokens=False) == "dog <s> </s> <tool call> fox"
    assert text(skip_special_tokens=False, spaces_between_special_tokens=False) == "dog <s></s><tool call> fox"
    assert text(spaces_between_special_tokens=False) == text() == "dog <tool call> fox"


# Stop strings


def expected_stop(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Return (end, stop) of the match that is complete first, the longest of those: by trying every end."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end, max(found, key=len)
    return None


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text("abé", max_size=6), max_size=12),
    st.lists(st.text("abé", min_size=1, max_size=5), min_size=1, max_size=4),
    st.booleans(),
)
def test_stop_matcher_against_brute_force(pieces: list[str], stops: list[str], include: bool) -> None:
    matcher = StopMatcher(compile_stops(tuple(stops)), include)
    text, sent = "", ""
    for piece in pieces:
        before = text
        text += piece
        new, n_used = matcher.push(piece)
        sent += new
        match = expected_stop(text, stops)
        assert (matcher.matched is not None) == (match is not None)
        if match is not None:
            end, stop = match
            assert matcher.matched == stop
            assert len(before) + n_used == end
            assert sent == (text[:end] if include else text[: end - len(stop)])
            return
        held = len(text) - len(sent)
        starts = [n for n in range(len(text) + 1) if any(stop.startswith(text[len(text) - n :]) for stop in stops)]
        assert held == (0 if include else max(n for n in starts if n == 0 or n <= len(text)))
        assert n_used == len(piece)
    assert sent + matcher.flush() == text


def test_stop_string_that_almost_matches_everywhere() -> None:
    text = "a" * 20000
    matcher = StopMatcher(compile_stops(("a" * 5000 + "b",)))
    out = "".join(matcher.push(text[i : i + 4])[0] for i in range(0, len(text), 4))
    assert matcher.matched is None
    assert len(out) == len(text) - 5000
    assert out + matcher.flush() == text


@pytest.mark.parametrize("kind", ["demo", "byte_level", "llama2", "wordpiece"])
def test_stop_strings_over_token_and_chunk_borders(kind: str) -> None:
    """Whatever the cut into chunks: the same text, stop string and number of tokens."""
    tokenizer = load(kind)
    rng = random.Random(7)
    n_matched = 0
    for _ in range(300):
        ids = tokenizer.encode(TEXT, add_special_tokens=False)
        if rng.random() < 0.5:
            ids = random_ids(tokenizer, rng)
        full = tokenizer.decode(ids)
        stops = []
        for _ in range(rng.randint(1, 4)):
            start = rng.randrange(len(full) + 1)
            stops.append(full[start : start + rng.randint(1, 9)] + rng.choice(["", "", "x"]) or "zz")
        include = rng.random() < 0.5
        match = expected_stop(full, stops)
        # The fewest tokens whose decoding holds the match and whose text cannot change any more.
        results = set()
        for _ in range(4):
            detokenizer = tokenizer.detokenizer(stop=stops, include_stop=include)
            parts = run(detokenizer, cut(ids, rng))
            results.add(("".join(parts), detokenizer.stopped, detokenizer.n_tokens))
            assert detokenizer.push(ids) == "" or detokenizer.stopped is None
        assert len(results) == 1
        text, stopped, n_tokens = results.pop()
        if match is None:
            assert (text, stopped, n_tokens) == (full, None, len(ids))
            continue
        n_matched += 1
        end, stop = match
        assert stopped == stop
        assert text == (full[:end] if include else full[: end - len(stop)])
        if "\ufffd" not in full:
            decoded = [tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
            assert n_tokens == next(n for n, part in enumerate(decoded) if len(part.rstrip("\ufffd")) >= end)
    assert n_matched > 100


def test_newline_as_byte_token_counts_its_own_token() -> None:
    """Llama 2 spells a newline <0x0A>, known to be text only a token later: that token is not billed."""
    tokenizer = load("llama2")
    newline = tokenizer.backend.token_to_id("<0x0A>")
    word = tokenizer.encode("dog", add_special_tokens=False)
    for ids, n_tokens in (([*word, newline, *word], len(word) + 1), ([newline], 1), ([newline, newline, *word], 1)):
        detokenizer = tokenizer.detokenizer(stop=["\n"], prompt_tail=word)
        parts = run(detokenizer, [[i] for i in ids])
        assert detokenizer.stopped == "\n"
        assert detokenizer.n_tokens == n_tokens
        assert "".join(parts) == " dog" * (n_tokens > 1)


def test_stop_strings_held_back_and_released() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("abc END of", add_special_tokens=False)
    detokenizer = tokenizer.detokenizer(stop=[" END of it"])
    assert "".join(detokenizer.push([i]) for i in ids) == "abc"
    assert detokenizer.finish() == " END of"
    assert detokenizer.stopped is None


def test_stop_of_several_choices() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("one two three four", add_special_tokens=False)
    for stops, text, stopped in (
        (["three four", "three"], "one two ", "three"),
        (["wo th", "o three"], "one t", "wo th"),
        (["e", "ne"], "o", "ne"),
        (["nothing"], "one two three four", None),
    ):
        detokenizer = tokenizer.detokenizer(stop=stops)
        assert "".join(run(detokenizer, [[i] for i in ids])) == text
        assert detokenizer.stopped == stopped


def test_stop_inside_multibyte_text() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("日本語👩の文", add_special_tokens=False)
    detokenizer = tokenizer.detokenizer(stop=["👩の"])
    parts = run(detokenizer, [[i] for i in ids])
    assert "".join(parts) == "日本語"
    assert detokenizer.stopped == "👩の"


def test_min_tokens_passes_over_stop_strings() -> None:
    tokenizer = load("byte_level")
    ids = [*tokenizer.encode("no", add_special_tokens=False), *tokenizer.encode("x", add_special_tokens=False)] * 3
    per_round = len(ids) // 3
    detokenizer = tokenizer.detokenizer(stop=["x"], min_tokens=per_round)
    assert "".join(run(detokenizer, [[i] for i in ids])) == "noxno"
    assert detokenizer.n_tokens == 2 * per_round


def test_special_token_can_be_a_stop_string_when_shown() -> None:
    tokenizer = load("byte_level")
    ids = tokenizer.encode("hi<|im_end|>", add_special_tokens=False)
    detokenizer = tokenizer.detokenizer(stop=SPECIAL, skip_special_tokens=False)
    assert "".join(run(detokenizer, [ids])) == "hi"
    assert detokenizer.stopped == "<|im_end|>"

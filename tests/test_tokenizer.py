"""Loading a tokenizer, text to ids and back, one token's text; transformers says what is right."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend

from rvllm.errors import InvalidRequestError, ModelError
from rvllm.tokenizer import MAX_INLINE_CHARS, Tokenizer
from tiny_tokenizers import BUILDERS, save, serialised

TEXTS = [
    "",
    "hello world",
    "  two  spaces ",
    "<|im_start|>user\nGrüße 日本 👩‍👩‍👧<|im_end|>",
    "<s>again<tool call>xねえ<|new|>",
]


@pytest.mark.parametrize("kind", BUILDERS)
def test_same_as_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save(kind, tmp_path, pad_token="<tool call>", additional_special_tokens=["ねえ", "<|im_start|>", "<|new|>"])
    ours, theirs = Tokenizer.from_dir(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.vocab_size == len(theirs)
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, special)
            assert ids == theirs.encode(text, add_special_tokens=special)
            for skip in (True, False):
                assert ours.decode(ids, skip) == theirs.decode(
                    ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
                )


@pytest.mark.parametrize("add_bos", [True, False, None])
@pytest.mark.parametrize("processor", [True, False])
def test_who_decides_about_bos(add_bos: bool | None, processor: bool, tmp_path: Path) -> None:
    """tokenizer.json does, as in transformers, even against add_bos_token."""
    from transformers import AutoTokenizer

    save("byte_level", tmp_path, **({} if add_bos is None else {"add_bos_token": add_bos}))
    if not processor:
        state = json.loads(serialised("byte_level")) | {"post_processor": None}
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    ids = Tokenizer.from_dir(tmp_path).encode("hi")
    assert ids == AutoTokenizer.from_pretrained(tmp_path).encode("hi")
    assert (ids[0] == 0) is processor


def test_tokens_only_in_the_settings(tmp_path: Path) -> None:
    """added_tokens_decoder, and named tokens that tokenizer.json lacks, as transformers adds them."""
    from transformers import AutoTokenizer

    n = Backend.from_str(serialised("byte_level")).get_vocab_size()
    added = {
        str(n): {"content": "<think>", "special": False, "normalized": False},
        str(n + 1): {"content": "<|fim|>", "special": True, "lstrip": False},
    }
    save("byte_level", tmp_path, added_tokens_decoder=added, pad_token="<|pad|>")
    ours, theirs = Tokenizer.from_dir(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.pad_token_id == theirs.pad_token_id == n + 2
    ids = ours.encode("<think>a<|fim|>b")
    assert ids == theirs.encode("<think>a<|fim|>b")
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == "<think>ab"


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    backend = Backend.from_str(serialised("byte_level"))
    backend.enable_truncation(4)
    backend.enable_padding(length=30)
    backend.save(str(tmp_path / "tokenizer.json"))
    plain = Backend.from_str(serialised("byte_level"))
    assert Tokenizer.from_dir(tmp_path).encode("a longer text") == plain.encode("a longer text").ids


def test_older_directories(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(serialised("byte_level"))
    assert Tokenizer.from_dir(tmp_path).eos_token_id is None
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<extra>": 99999}))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.eos_token_id == tokenizer.backend.token_to_id("<|im_end|>")
    assert tokenizer.backend.token_to_id("<extra>") is not None


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "tokenizer.json"),
        ({"tokenizer.model": "x"}, "tokenizer.model alone is not enough"),
        ({"tokenizer.json": "{"}, "tokenizer.json: not a usable tokenizer"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: not a usable tokenizer"),
        ({"tokenizer.json": serialised("byte_level")[:500]}, "tokenizer.json: not a usable tokenizer"),
        ({"tokenizer.json": serialised("byte_level"), "tokenizer_config.json": "[1]"}, "tokenizer_config.json"),
        ({"tokenizer.json": serialised("byte_level"), "tokenizer_config.json": '{"a"'}, "tokenizer_config.json"),
        ({"tokenizer.json": serialised("byte_level"), "tokenizer_config.json": "\xff"}, "tokenizer_config.json"),
        (
            {"tokenizer.json": serialised("byte_level"), "tokenizer_config.json": '{"added_tokens_decoder": {"x": 1}}'},
            "added_tokens_decoder is not",
        ),
        (
            {"tokenizer.json": serialised("byte_level"), "tokenizer_config.json": '{"added_tokens_decoder": {"1": 1}}'},
            "has no content",
        ),
    ],
)
def test_unusable_directories_are_named(files: dict[str, str], named: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="latin-1" if content == "\xff" else "utf-8")
    with pytest.raises(ModelError, match=named) as caught:
        Tokenizer.from_dir(tmp_path)
    assert str(tmp_path) in str(caught.value) or "tokenizer_config.json" in str(caught.value)


def test_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a directory"):
        Tokenizer.from_dir(tmp_path / "nowhere")


def test_long_texts_leave_the_event_loop(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_dir(save("byte_level", tmp_path))
    threads = []
    encode = tokenizer.encode

    def spy(*args: object) -> list[int]:
        threads.append(threading.current_thread())
        return encode(*args)  # type: ignore[arg-type]

    tokenizer.encode = spy  # type: ignore[method-assign]
    long = "word " * MAX_INLINE_CHARS
    assert asyncio.run(tokenizer.encode_async("short")) == encode("short")
    assert asyncio.run(tokenizer.encode_async(long, False)) == encode(long, False)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


def test_encoding_releases_the_gil(tmp_path: Path) -> None:
    """While a long text is tokenised on one thread, this one goes on."""
    tokenizer = Tokenizer.from_dir(save("byte_level", tmp_path))
    long = "word and more " * 20_000
    done = threading.Event()
    thread = threading.Thread(target=lambda: (tokenizer.encode(long), done.set()))
    thread.start()
    n_turns = 0
    while not done.is_set():
        n_turns += 1
    thread.join()
    assert n_turns > 1000


def test_bad_text_and_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_dir(save("byte_level", tmp_path))
    with pytest.raises(InvalidRequestError, match="surrogate"):
        tokenizer.encode("a\ud800")
    for bad in (-1, 1 << 32):
        with pytest.raises(InvalidRequestError, match="token id"):
            tokenizer.decode([bad])
    assert tokenizer.decode([10**6]) == tokenizer.token_str(10**6) == ""
    assert tokenizer.token_bytes(10**6) == b""
    with pytest.raises(InvalidRequestError, match="stop"):
        tokenizer.detokenizer(stop=["a", ""])


@pytest.mark.parametrize("kind", ["byte_level", "llama2", "gemma"])
def test_bytes_of_the_tokens_are_the_text(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_dir(save(kind, tmp_path))
    text = "Grüße 日本 👩‍👩‍👧 x<|im_start|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().lstrip() == text
    assert all(tokenizer.token_str(i) == tokenizer.token_bytes(i).decode(errors="replace") for i in ids)


def test_token_str(tmp_path: Path) -> None:
    assert _token_str("byte_level", tmp_path, "Ġthe") == " the"
    assert _token_str("byte_level", tmp_path, "Ċ") == "\n"
    assert _token_str("byte_level", tmp_path, "<s>") == "<s>"
    assert _token_str("byte_level", tmp_path, "Ã") == "\ufffd"
    assert _token_str("llama2", tmp_path, "▁") == " "
    assert _token_str("llama2", tmp_path, "<0x0A>") == "\n"
    assert _token_str("wordpiece", tmp_path, "dog") == " dog"
    assert _token_str("wordpiece", tmp_path, "##e") == "e"
    assert _token_str("wordpiece", tmp_path, "<s>") == "<s>"
    assert _token_str("unigram", tmp_path, "▁dog") == " dog"


def _token_str(kind: str, directory: Path, token: str) -> str:
    tokenizer = Tokenizer.from_dir(save(kind, directory / kind))
    token_id = tokenizer.backend.token_to_id(token)
    assert token_id is not None
    return tokenizer.token_str(token_id)


@pytest.mark.parametrize("kind", ["byte_level", "llama2"])
def test_bad_words(kind: str, tmp_path: Path) -> None:
    """Each word both as a text begins and as it goes on; every sequence spells the word."""
    tokenizer = Tokenizer.from_dir(save(kind, tmp_path))
    sequences = tokenizer.encode_bad_words(["dog", " fox"])
    spelt = [b"".join(map(tokenizer.token_bytes, ids)).decode() for ids in sequences]
    assert {text.strip() for text in spelt} == {"dog", "fox"}
    assert tokenizer.encode("dog", False) in sequences
    assert tokenizer.encode(" fox", False) in sequences
    assert len(sequences) == 4
    assert tokenizer.encode_bad_words(["dog", "dog"]) == sequences[:2]
    assert tokenizer.encode_bad_words([]) == []
    with pytest.raises(InvalidRequestError, match="bad_words"):
        tokenizer.encode_bad_words([" "])


def test_import_is_light() -> None:
    """Neither the module nor a loaded tokenizer pulls in transformers; the library comes only when it is used."""
    code = (
        "import sys, rvllm.tokenizer, rvllm.detokenizer, rvllm.chat_template;"
        "assert not {'tokenizers', 'transformers', 'jinja2', 'numpy'} & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

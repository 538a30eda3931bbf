"""Small tokenizers of every kind that models use, trained on the spot."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. It doesn't care, and the dog isn't moved either.",
    "def main(argv: list[str]) -> int:\n    for name in argv[1:]:\n        print(f'{name!r}')\n    return 0\n",
    "Grüße aus Köln, où l'été est déjà passé; čeština, łódź, ελληνικά, русский язык, עברית, العربية.",
    "日本語の文章です。你好世界 한국어 문장. 👩‍👩‍👧‍👦 🎉🎉 🇩🇪 e\u0301 a\u0308",
    "numbers 0 1 2 3 10 100 1000 3.14159, symbols !@#$%^&*()[]{}<>/\\|`~ \t tabs\t\tand  spaces   end\r\n",
] * 8


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<tool call>", "ねえ", "née")])
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: bytes, merged; specials and added tokens on top."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return _with_added(tokenizer)


def byte_fallback(strip: int = 1) -> Tokenizer:
    """As Llama 2 and Mistral (strip 1) or Gemma (strip 0): SentencePiece text, unknown characters as <0xNN>."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = [chr(c) for c in range(33, 127)] + ["▁", "é", "本"]
    trained.train_from_iterator(
        CORPUS[:2] * 8,
        trainers.BpeTrainer(vocab_size=260, initial_alphabet=alphabet, limit_alphabet=97, show_progress=False),
    )
    learnt = json.loads(trained.to_str())["model"]
    names = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [name for name in learnt["vocab"] if name not in names]
    names += ["▁▁", "▁▁▁▁"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)},
            merges=[tuple(merge) for merge in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", strip, 0)] * (strip > 0))
    tokenizer.add_special_tokens(["<unk>", *SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _with_added(tokenizer)


def unigram() -> Tokenizer:
    """As T5: Metaspace without byte fallback."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>", show_progress=False
        ),
    )
    return _with_added(tokenizer)


def wordpiece() -> Tokenizer:
    """As BERT: words and ##ends, spaces put between."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", *SPECIAL], show_progress=False)
    )
    return _with_added(tokenizer)


def word_end() -> Tokenizer:
    """As CLIP: </w> ends a word, and the last word has no space behind it."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False),
    )
    return _with_added(tokenizer)


def no_decoder() -> Tokenizer:
    """Whole words and no decoder at all: tokens joined by spaces."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", *SPECIAL], show_progress=False)
    )
    return _with_added(tokenizer)


DEMO = Path(__file__).parent.parent / "python" / "rvllm" / "demo"

BUILDERS = {
    "demo": functools.partial(Tokenizer.from_file, str(DEMO / "tokenizer.json")),
    "byte_level": byte_level,
    "llama2": byte_fallback,
    "gemma": functools.partial(byte_fallback, 0),
    "unigram": unigram,
    "wordpiece": wordpiece,
    "word_end": word_end,
    "no_decoder": no_decoder,
}


@functools.cache
def serialised(name: str) -> str:
    """Return the tokenizer.json of one kind."""
    return BUILDERS[name]().to_str()


def save(name: str, directory: Path, **config: object) -> Path:
    """Write a model directory's tokenizer files; `config` goes into tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(serialised(name))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory

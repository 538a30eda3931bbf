"""Pieces of the Python standard library's sources, found beside the running interpreter.

The text therefore depends on the Python version; the model card names the one that was used.
"""

import re
import sysconfig
import zlib
from collections import Counter
from pathlib import Path

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "encodings",
    "turtledemo",
    "pydoc_data",
    "ensurepip",
    "__pycache__",
    "msilib",
}
MAX_PIECE_CHARS = 2400  # about 800 tokens: a piece fits in one training row
BOUNDARY = re.compile(r"^(?:@|def |class |async def )")
INNER_BOUNDARY = re.compile(r"^    (?:@|def |async def )")


def files() -> list[Path]:
    """Return the library's pure-Python files in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in root.rglob("*.py") if not SKIPPED_FOLDERS & set(path.relative_to(root).parts))
    return sorted(path for path in found if not path.name.startswith("_sysconfigdata"))


def pieces(text: str) -> list[str]:
    """Cut a source text before definitions into pieces of at most about MAX_PIECE_CHARS characters."""
    done: list[str] = []
    current: list[str] = []
    size = 0
    decorated = False
    for line in text.splitlines(keepends=True):
        boundary = (BOUNDARY.match(line) and size > MAX_PIECE_CHARS // 4) or (
            INNER_BOUNDARY.match(line) and size > MAX_PIECE_CHARS // 2
        )
        if current and ((boundary and not decorated) or size > MAX_PIECE_CHARS):
            done.append("".join(current))
            current, size = [], 0
        current.append(line)
        size += len(line)
        decorated = line.lstrip().startswith("@")
    return [*done, "".join(current)]


def usable(piece: str) -> bool:
    """Return whether a piece is code or prose rather than a table, and plain ASCII."""
    letters = sum(char.isalpha() or char.isspace() for char in piece)
    return (
        len(piece) > 80 and piece.isascii() and letters > 0.72 * len(piece) and max(map(len, piece.splitlines())) < 140
    )


def library() -> tuple[list[str], list[str]]:
    """Return (training pieces, held-out pieces); whole files are held out, chosen by a checksum of their path."""
    root = Path(sysconfig.get_path("stdlib"))
    train: list[str] = []
    held_out: list[str] = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8").expandtabs(4)
        except UnicodeDecodeError:
            continue
        side = held_out if zlib.crc32(str(path.relative_to(root)).encode()) % 50 == 0 else train
        side.extend(piece.strip("\n") + "\n" for piece in pieces(text) if usable(piece))
    return train, held_out


def common_words(texts: list[str], known: set[str]) -> list[str]:
    """Return the English-looking words of the comments and docstrings that are not in `known`."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"(?<![\w.])[a-z]{4,12}(?= [a-z])", text))
    return [word for word, n in sorted(counts.items()) if n >= 4 and word not in known]

"""Small helpers that turn one written template into many phrasings.

`spin` expands ``[a|b|c]`` choices (nested ones too); `rough` adds what people do to text when they type:
lower case, missing punctuation, typos, politeness.
"""

import random
import re

# ruff: noqa: SIM905
_SYLLABLES = (
    "ba be bo da de do fa fi ga go ka ki ko la le li lo ma me mi mo na ne ni no pa pe po ra re "
    "ri ro sa se so ta te ti to va vi za zo"
).split()
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def spin(rng: random.Random, template: str, **values: object) -> str:
    """Return `template` with each ``[a|b]`` replaced by one choice, then each ``{name}`` by its value."""
    text = template
    while "[" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    return text.format(**values) if values else text


def typo(rng: random.Random, text: str) -> str:
    """Misspell one lower-case word of four letters or more; leave names, numbers and code alone."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha() and word.islower()]
    if not places or "rvllm" in text.lower():
        return text
    place = rng.choice(places)
    word = words[place]
    at = rng.randrange(len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind == 1:
        word = word[:at] + word[at + 1 :]
    else:
        word = word[:at] + word[at] + word[at:]
    words[place] = word
    return " ".join(words)


def rough(rng: random.Random, text: str, *, keep_case: bool = False) -> str:
    """Return `text` as a user might type it; `keep_case` protects names that the answer must copy."""
    if rng.random() < 0.06:
        text = rng.choice(["please ", "hey, ", "ok, ", "so, ", "hi, ", "um, ", "and "]) + text[:1].lower() + text[1:]
    if rng.random() < 0.28:
        text = text.rstrip("?.!") or text
    if rng.random() < 0.1:
        text = typo(rng, text)
    draw = rng.random()
    if not keep_case and draw < 0.3:
        text = text.lower()
    elif not keep_case and draw < 0.33:
        text = text.upper()
    if rng.random() < 0.04:
        text += rng.choice(["?", "!", " please", " :)", "??", "...", " thanks"])
    return text


def with_article(noun: str) -> str:
    """Return `noun` with "a" or "an"; decided by the first letter, so list only nouns for which that is right."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def listing(items: list[str]) -> str:
    """Join as English does: "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def invented(rng: random.Random) -> str:
    """Return a made-up word, so that copying is learned and not only the lists above."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))

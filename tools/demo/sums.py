"""Small sums: addition, subtraction, multiplication, exact division, counting and comparing.

Digits are single tokens, so the model can learn to carry. Some pairs of two-digit numbers are never shown in training
(`held_out`); evaluate.py asks for exactly those to see whether it did.
"""

# One template per line, however long, and word lists as one string.
# ruff: noqa: E501, SIM905

import random

from phrasing import listing, rough, spin

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}

ASK_SYMBOLS = [
    "[What is|what is|What's|whats|Calculate|Compute|calculate|compute|How much is|how much is|Solve|solve|Evaluate|Tell me|what does|"
    "Can you compute|Can you calculate|Do you know|what do you get for|work out|what's the result of|Please compute|result of] {e}[?||.]",
    "{e}[||?| =| =|=| = ?|=?]",
    "{e}",
    "[hey|hi|ok|and|now|so|please|well], [what is|compute|how much is|calculate] {e}[?|]",
    "[I have a sum for you|Here is a sum|Quick question|math question|Math]: {e}[?|]",
]
ASK_SPOKEN = [
    "[What is|what is|What's|whats|how much is|How much is|Compute|calculate|Tell me|Can you tell me] {a} {op} {b}[?|]",
    "{a} {op} {b}[?||?]",
]
ASK_VERB = {
    "+": [
        "[Add|add|Sum|sum|Please add|Can you add] {a} and {b}[.||?]",
        "[What is|Compute|what is] the sum of {a} and {b}[?|]",
        "[add|Add] {b} to {a}[.|]",
        "[How much is|What is] {a} and {b}[ together|][?|]",
    ],
    "-": [
        "[Subtract|subtract|take|Take away] {b} from {a}[.|]",
        "[What is|Compute|what is] the difference [between|of] {a} and {b}[?|]",
        "[what is|How much is] {a} take away {b}[?|]",
    ],
    "*": [
        "[Multiply|multiply|Can you multiply] {a} by {b}[.|?|]",
        "[Multiply|multiply] {a} and {b}[.|]",
        "[What is|Compute|what is] the product of {a} and {b}[?|]",
        "[What is|whats|what is|compute] {a} x {b}[?|]",
        "{a}x{b}",
    ],
    "/": ["[Divide|divide] {a} by {b}[.|]", "[What is|how much is] {a} over {b}[?|]"],
}
# Every answer repeats the sum: copying the numbers next to the result is what lets so small a model compute it.
ANSWER = "{a} {op} {b} = {c}."
NUMBER_ONLY = [
    "[Answer with|Give me|Reply with|Say|answer with] [only|just] the number[.|:] [What is|what is] {e}[?|]",
    "{e} [- number only|(just the number)|, only the number]",
]
THINGS = "apples oranges books coins cookies pencils balls eggs stones cards tickets cakes stamps toys marbles".split()
PEOPLE = "Tom Anna Ben Mia Sam Lucy Max Emma Leo Nina Paul Sara Alice Bob Eva Tim".split()


def held_out(a: int, b: int) -> bool:
    """Return whether the pair is kept from training; pairs up to 20 never are."""
    return max(a, b) > 20 and max(a, b) < 100 and (7 * a + 13 * b) % 20 == 0


def operands(rng: random.Random) -> tuple[int, str, int, int]:
    """Return (a, op, b, result); mostly small, sometimes three digits, never a held-out pair."""
    while True:
        op = rng.choices("+-*/", (45, 30, 20, 5))[0]
        if op in "*/":
            a, b = rng.randint(0, 12), rng.randint(0, 12)
            if rng.random() < 0.15:
                a, b = rng.randint(0, 99), rng.randint(0, 10)
            if op == "*":
                return a, op, b, a * b
            return (a * max(b, 1), op, max(b, 1), a)
        top = rng.choices((10, 20, 99, 999), (22, 36, 37, 5))[0]
        a, b = rng.randint(0, top), rng.randint(0, top)
        if held_out(a, b):
            continue
        if op == "-" and a < b and rng.random() < 0.6:
            a, b = b, a
            if held_out(a, b):
                continue
        return a, op, b, a + b if op == "+" else a - b


def expression(rng: random.Random, a: int, op: str, b: int) -> str:
    """Write the operation with or without spaces and with the usual signs."""
    sign = rng.choice("**x") if op == "*" else op
    return rng.choice((f"{a} {sign} {b}", f"{a} {sign} {b}", f"{a}{sign}{b}"))


def plain_sum(rng: random.Random) -> tuple[str, str]:
    """One operation on two numbers, in digits."""
    a, op, b, c = operands(rng)
    draw = rng.random()
    if draw < 0.02:
        return spin(rng, rng.choice(NUMBER_ONLY), e=expression(rng, a, op, b)), str(c)
    if draw < 0.6:
        asked = spin(rng, rng.choice(ASK_SYMBOLS), e=expression(rng, a, op, b))
    elif draw < 0.8:
        asked = spin(rng, rng.choice(ASK_SPOKEN), a=a, b=b, op=SPOKEN[op])
    else:
        asked = spin(rng, rng.choice(ASK_VERB[op]), a=a, b=b)
    return rough(rng, asked), ANSWER.format(a=a, op=op, b=b, c=c)


def word_sum(rng: random.Random) -> tuple[str, str]:
    """One addition or subtraction within twenty, in words: answered in words."""
    c = rng.randint(0, 20)
    a = rng.randint(0, c)
    b = c - a
    if rng.random() < 0.5:
        a, op, b, c = a, "plus", b, c
    else:
        a, op, b, c = c, "minus", b, a
    asked = spin(rng, rng.choice(ASK_SPOKEN), a=WORDS[a], b=WORDS[b], op=op)
    return rough(rng, asked), f"{WORDS[a].capitalize()} {op} {WORDS[b]} is {WORDS[c]}."


def three_numbers(rng: random.Random) -> tuple[str, str]:
    """Add three small numbers, showing the step in between."""
    a, b, c = (rng.randint(0, 20) for _ in range(3))
    asked = spin(rng, "[What is|Compute|calculate|How much is|] {a} + {b} + {c}[?|]", a=a, b=b, c=c).strip()
    if rng.random() < 0.3:
        asked = spin(rng, "[Add|What is the sum of|sum] {a}, {b} and {c}[?|.|]", a=a, b=b, c=c)
    return rough(rng, asked), f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}."


def story_sum(rng: random.Random) -> tuple[str, str]:
    """A one-line word problem with small numbers."""
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    thing, (who, other) = rng.choice(THINGS), rng.sample(PEOPLE, 2)
    kind = rng.randrange(4)
    if kind == 0:
        asked = spin(
            rng,
            "[{who} has|I have] {a} {t} and [buys|gets|finds|buy|get|find] {b} more. How many {t} [are there now|in total|does {who} have|do I have]?",
            who=who,
            a=a,
            b=b,
            t=thing,
        )
        return asked, f"{a} + {b} = {a + b}, so the answer is {a + b} {thing}."
    if kind == 1:
        a, b = max(a, b), min(a, b)
        asked = spin(
            rng,
            "[{who} has|I have] {a} {t} and [gives|give|loses|lose|eats] {b}[ away| to {o}|]. How many {t} are left?",
            who=who,
            a=a,
            b=b,
            t=thing,
            o=other,
        )
        return asked, f"{a} - {b} = {a - b}, so {a - b} {thing} are left."
    if kind == 2:
        asked = spin(
            rng,
            "[{who} has|I have] {a} {t} and {o} has {b}. How many {t} [are there|do they have|are there in total]?",
            who=who,
            a=a,
            b=b,
            t=thing,
            o=other,
        )
        return asked, f"{a} + {b} = {a + b}, so there are {a + b} {thing}."
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    asked = spin(
        rng, "There are {a} [boxes|bags] with {b} {t} each. How many {t} are there[ in total|]?", a=a, b=b, t=thing
    )
    return asked, f"{a} * {b} = {a * b}, so there are {a * b} {thing}."


def count(rng: random.Random) -> tuple[str, str]:
    """Count up or down between two numbers."""
    low = rng.choice((1, 1, 1, 0, rng.randint(0, 90)))
    high = low + rng.randint(3, 20)
    down = rng.random() < 0.3
    if down:
        asked = "[Count|Can you count|count|Please count] [down|backwards|back|backward] from {b} to {a}[.|?|]"
        if low == 0 and rng.random() < 0.5:
            asked = "[Count down from {b}|Give me a countdown from {b}][.|]"
    elif low == 1 and rng.random() < 0.6:
        asked = "[Count|Can you count|count|Please count|count up] to {b}[.|?|]"
    else:
        asked = "[Count|Can you count|count|List the numbers|Give me the numbers] from {a} to {b}[.|?|]"
    numbers = [str(n) for n in range(low, high + 1)]
    return rough(rng, spin(rng, asked, a=low, b=high)), ", ".join(numbers[::-1] if down else numbers)


def compare(rng: random.Random) -> tuple[str, str]:
    """Order, parity, neighbours, doubles, halves, squares, extremes and sorting."""
    a, b = rng.sample(range(rng.choice((21, 100))), 2)
    kind = rng.randrange(9)
    if kind == 0:
        bigger = rng.random() < 0.5
        word = spin(rng, "[bigger|larger|greater|more]" if bigger else "[smaller|less]")
        asked = spin(rng, "[Which|which|Which number|What] is {w}[,|:] {a} or {b}[?|]", w=word, a=a, b=b)
        return rough(
            rng, asked
        ), f"{max(a, b) if bigger else min(a, b)} is {word} than {min(a, b) if bigger else max(a, b)}."
    if kind == 1:
        asked = spin(rng, "[Is|is] {a} [even|odd|even or odd|an even number|an odd number][?|]", a=a)
        said = "even" if a % 2 == 0 else "odd"
        if "or odd" in asked:
            return rough(rng, asked), f"{a} is {said}."
        return rough(rng, asked), ("Yes" if said in asked else "No") + f", {a} is {said}."
    if kind == 2:
        asked = spin(rng, "[What|Which number] comes [after|next after] {a}[?|]", a=a)
        return rough(rng, asked), f"{a + 1} comes after {a}."
    if kind == 3:
        a = max(a, 1)
        return rough(rng, spin(rng, "[What|Which number] comes before {a}[?|]", a=a)), f"{a - 1} comes before {a}."
    if kind == 4:
        return rough(
            rng, spin(rng, "[What is|Compute|what is] [double|twice|the double of] {a}[?|]", a=a)
        ), f"Twice {a} is {2 * a}."
    if kind == 5:
        return rough(
            rng, spin(rng, "[What is|Compute|what is] half of {a}[?|]", a=2 * (a // 2))
        ), f"Half of {2 * (a // 2)} is {a // 2}."
    if kind == 6:
        a = a % 13
        return rough(
            rng, spin(rng, "[What is|Compute|what is] [the square of {a}|{a} squared][?|]", a=a)
        ), f"{a} * {a} = {a * a}."
    numbers = rng.sample(range(21), rng.randint(3, 5))
    text = ", ".join(map(str, numbers))
    if kind == 7:
        asked = spin(
            rng, "[Sort|Order|Please sort|Can you sort|sort] [these numbers: |the numbers |the list |]{t}[.|]", t=text
        )
        return rough(rng, asked), ", ".join(map(str, sorted(numbers)))
    word = rng.choice(("largest", "smallest", "biggest", "maximum", "minimum"))
    value = max(numbers) if word in ("largest", "biggest", "maximum") else min(numbers)
    return rough(rng, f"What is the {word} of {listing(list(map(str, numbers)))}?"), f"The {word} is {value}."


def follow_up(rng: random.Random) -> list[tuple[str, str]]:
    """A chain of sums, each starting from the last result."""
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    turns = [(rough(rng, spin(rng, rng.choice(ASK_SYMBOLS), e=expression(rng, a, "+", b))), f"{a} + {b} = {a + b}.")]
    total = a + b
    for _ in range(rng.randint(1, 3)):
        kind, c = rng.randrange(4), rng.randint(1, 12)
        if kind == 0 or kind == 3:
            turns.append(
                (
                    spin(rng, "[plus|and plus|now add|add|Now add|plus another|and] {c}[?||.]", c=c),
                    f"{total} + {c} = {total + c}.",
                )
            )
            total += c
        elif kind == 1 and total >= c:
            turns.append(
                (
                    spin(rng, "[minus|now subtract|subtract|and minus|Now take away] {c}[?||.]", c=c),
                    f"{total} - {c} = {total - c}.",
                )
            )
            total -= c
        else:
            turns.append(
                (
                    spin(rng, "[double it|Now double it|times 2|twice that|times two][?||.]"),
                    f"{total} * 2 = {total * 2}.",
                )
            )
            total *= 2
    return turns


EXCHANGES = [(15, plain_sum), (2, word_sum), (1.5, three_numbers), (2, story_sum), (2, count), (3.5, compare)]

"""Dialogues: exchanges from every topic module, put together with system prompts and into several turns."""

# One template per line, however long.
# ruff: noqa: E501

import random

import about
import facts
import functions
import shapes
import smalltalk
import stories
import sums
import unknown
from facts import COLOURS, FRUITS
from phrasing import rough, spin
from shapes import person

Message = dict[str, str]
Turn = tuple[str, str]

# Share of each topic among single exchanges; `unknown` stands apart because it needs a word list.
TOPICS = {
    "smalltalk": (13, smalltalk.EXCHANGES), "about": (15, about.EXCHANGES), "sums": (27, sums.EXCHANGES), "facts": (11, facts.EXCHANGES),
    "json": (15, shapes.EXCHANGES), "functions": (8, functions.EXCHANGES), "stories": (3, stories.EXCHANGES), "unknown": (14, None),
}  # fmt: skip
REPEATABLE = [smalltalk.joke, smalltalk.riddle, smalltalk.poem, stories.told, facts.some]

SYSTEM = [
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful, friendly assistant.",
    "You are a helpful AI assistant.", "You are the rvllm demo.", "You are a friendly chatbot.", "Be brief.", "Answer briefly.", "You are a small model.",
    "You are rvllm demo, a small language model.", "Answer in English.", "You are a polite assistant. Answer in one sentence.", "Be helpful and honest.",
    "If you do not know something, say so.", "You are a careful assistant. Think before you answer.", "Please be concise.",
]  # fmt: skip
SYSTEM_GRAMMAR = (
    "You are [a|an experienced|a very|the] [helpful|kind|expert|smart|polite|cheerful|patient|concise] [assistant|teacher|chatbot|tutor|programmer|writer|guide|agent]"
    "[ for {a}| who knows {a}| of a company that sells {a}|]. [Answer the user.|Always be polite.|Help the user with {b}.|Do not talk about {b}.|Answer questions about {b}.|Use simple words.|]"
)
INTRODUCTIONS = ["[My name is|I am|I'm|my name is|Hi, I am|Hello, my name is|Hi, my name is|Call me] {n}[.|!|]"]
ASK_NAME = [
    "[What is|What's|Do you know|Do you remember|whats|can you tell me] my name[?|]",
    "[Who am I|who am i|Remember my name][?|]",
]
AGAIN = [
    "[another one|Another one|one more|One more|again|Again|another|more|More|Tell me another|next|Next one|do it again|another one please|one more please][.|!|?|]"
]


def exchange(rng: random.Random, words: list[str]) -> tuple[str, Turn]:
    """Draw one exchange; return its topic and the turn."""
    topic = rng.choices(list(TOPICS), [weight for weight, _ in TOPICS.values()])[0]
    if topic == "unknown":
        return topic, unknown.unknown(rng, words)
    weights, makers = zip(*TOPICS[topic][1], strict=True)
    return topic, rng.choices(makers, weights)[0](rng)


def system(rng: random.Random, words: list[str]) -> list[Message]:
    """Half of the chats open with a system prompt, most often the usual one."""
    draw = rng.random()
    if draw < 0.5:
        return []
    if draw < 0.9:
        return [{"role": "system", "content": rng.choice(SYSTEM)}]
    a, b = rng.sample(words, 2) if len(words) > 1 else ("things", "tea")
    return [{"role": "system", "content": spin(rng, SYSTEM_GRAMMAR, a=a, b=b).strip()}]


def memory(rng: random.Random, words: list[str]) -> list[Turn]:
    """The user says something about themself and asks for it later, or asks without having said it."""
    name = person(rng)
    if rng.random() < 0.2:
        return [
            (
                rough(rng, spin(rng, rng.choice(ASK_NAME))),
                spin(rng, "[I do not know your name yet.|You have not told me your name.] What is it?"),
            )
        ]
    kind = rng.randrange(4)
    if kind < 2:
        first = (
            spin(rng, rng.choice(INTRODUCTIONS), n=name),
            spin(
                rng,
                "[Nice to meet you, {n}!|Hello, {n}!|Hi, {n}!] [How can I help you?|What can I do for you?|I am the demo model of rvllm.]",
                n=name,
            ),
        )
        last = (rough(rng, spin(rng, rng.choice(ASK_NAME))), f"Your name is {name}.")
    elif kind == 2:
        what, value = rng.choice(
            (
                ("colour", rng.choice(COLOURS)),
                ("color", rng.choice(COLOURS)),
                ("fruit", rng.choice(FRUITS)),
                ("number", str(rng.randint(1, 99))),
            )
        )
        spelt = "favorite" if what == "color" else "favourite"
        first = (
            f"My {spelt} {what} is {value}.",
            spin(rng, "[Nice choice!|Good to know!] I will remember it for this chat."),
        )
        last = (rough(rng, f"What is my {spelt} {what}?"), f"Your {spelt} {what} is {value}.")
    else:
        age = rng.randint(5, 90)
        first = (
            spin(rng, "[I am|I'm] {a} years old[.|]", a=age),
            spin(rng, "[Good to know!|Thank you for telling me!] [How can I help you?|What can I do for you?]"),
        )
        last = (rough(rng, "How old am I?"), f"You are {age} years old.")
    between = [exchange(rng, words)[1] for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    return [first, *between, last]


def repeated(rng: random.Random, words: list[str]) -> list[Turn]:
    """Ask for a joke, a poem or a story, then for another one."""
    maker = rng.choice(REPEATABLE)
    turns = [maker(rng)]
    n = rng.randint(1, 2)
    return turns + [(rough(rng, spin(rng, rng.choice(AGAIN))), maker(rng)[1]) for _ in range(n)]


def dialogue(rng: random.Random, words: list[str]) -> tuple[str, list[Message]]:
    """Return (source, messages): the topic for one turn, "several turns" for more."""
    draw = rng.random()
    if draw < 0.62:
        source, turn = exchange(rng, words)
        turns = [turn]
    else:
        source = "several turns"
        if draw < 0.68:
            turns = memory(rng, words)
        elif draw < 0.71:
            turns = repeated(rng, words)
        elif draw < 0.75:
            turns = sums.follow_up(rng)
        else:
            n = rng.choice((2, 2, 2, 2, 3, 3, 3, 4, 5, 6)) if draw < 0.99 else rng.randint(8, 24)
            turns = [exchange(rng, words)[1] for _ in range(n)]
            if rng.random() < 0.3:
                turns[0] = smalltalk.greeting(rng)
            if rng.random() < 0.2:
                turns[-1] = rng.choice((smalltalk.thanks, smalltalk.goodbye))(rng)
    messages = system(rng, words)
    for said, answer in turns:
        messages.append({"role": "user", "content": said})
        messages.append({"role": "assistant", "content": answer})
    return source, messages

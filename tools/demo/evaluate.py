"""Chat greedily with a checkpoint through transformers and print what it gets right.

python tools/demo/evaluate.py python/rvllm/demo
"""

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import chatml
import facts
import functions
import shapes
import smalltalk
import sums
import torch
import unknown
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

TALK = [
    ["hi"],
    ["Hello!"],
    ["hey there, how are you?"],
    ["Who are you?"],
    ["what is rvllm"],
    ["How do I install rvllm and serve a model?"],
    ["does it need pytorch"],
    ["What can you do?"],
    ["thanks!", "bye"],
    ["My name is Bob.", "What is 12 + 7?", "What is my name?"],
    ["What is 8*7?", "plus 4"],
    ["What day comes after Monday?"],
    ["capital of france?"],
    ["What is the capital of Mongolia?"],
    ["Name three colours."],
    ["Count from 3 to 9."],
    ["Give me a JSON object with name and age for Alice, 30."],
    ['Return JSON with keys "city" and "temperature" for Berlin, 21'],
    ["Give me a JSON list of three fruits"],
    ["Write a Python function that checks if a number is even."],
    ["fibonacci function please"],
    ["Reverse a string in python"],
    ["Explain the theory of general relativity."],
    ["Who won the 1998 World Cup?"],
    ["What is the best laptop under 1000 dollars?"],
    ["My cat is called Whiskers and she likes fish."],
    ["sdkjfh sdkfjh"],
    ["Tell me a joke", "another one"],
    ["Tell me a story about a fox."],
    ["Which is bigger, 17 or 71?"],
    ["I have 5 apples and get 3 more. How many apples do I have?"],
]
SNIPPETS = [
    "def is_even(n):\n",
    "def factorial(n):\n",
    "import json\n\n\ndef read_json(path):\n",
    "def reverse_string(text):\n",
    "class Stack:\n    def __init__(self):\n",
    "def fibonacci(n):\n    a, b = 0, 1\n",
    "import os\nimport sys\n\n\ndef main():\n",
    "for i in range(10):\n",
]


class Chat:
    """A checkpoint and greedy batched decoding."""

    def __init__(self, folder: Path) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(self.device).eval()
        # Greedy, whatever the checkpoint's own sampling defaults are.
        self.model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0, do_sample=False)

    def complete(self, prompts: list[str], max_tokens: int) -> list[str]:
        """Return the greedy continuation of each prompt."""
        out = []
        for at in range(0, len(prompts), 512):
            inputs = self.tokenizer(
                prompts[at : at + 512], return_tensors="pt", padding=True, return_token_type_ids=False
            ).to(self.device)
            with torch.no_grad():
                ids = self.model.generate(**inputs, max_new_tokens=max_tokens)
            out += self.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return out

    def ask(self, questions: list[str], max_tokens: int = 48, system: str | None = None) -> list[str]:
        """Return the answer to each question in a chat of its own."""
        head = [{"role": "system", "content": system}] if system else []
        chats = [[*head, {"role": "user", "content": question}] for question in questions]
        return self.complete(
            [self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats],
            max_tokens,
        )


def share(hits: list[bool]) -> str:
    """Write a count as "n / total (percent)"."""
    return f"{sum(hits)} / {len(hits)} ({sum(hits) / len(hits):.1%})"


def last_number(text: str) -> int | None:
    """Return the last integer of a text."""
    found = re.findall(r"-?\d+", text)
    return int(found[-1]) if found else None


def sums_right(chat: Chat, cases: list[tuple[int, str, int]], phrase: str = "What is {a} {op} {b}?") -> list[bool]:
    """Ask each (a, op, b) and compare the last number of the answer."""
    answers = chat.ask([phrase.format(a=a, op=op, b=b) for a, op, b in cases], 32)
    right = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    return [last_number(answer) == right[op](a, b) for (a, op, b), answer in zip(cases, answers, strict=True)]


def exact(
    chat: Chat, makers: list[Callable[[random.Random], tuple[str, str]]], n: int, max_tokens: int
) -> tuple[list[bool], list[tuple[str, str]]]:
    """Draw `n` fresh exchanges with one right answer; return which match exactly, and the failures."""
    rng = random.Random(987)
    drawn = [rng.choice(makers)(rng) for _ in range(n)]
    answers = chat.ask([question for question, _ in drawn], max_tokens)
    hits = [answer.strip() == right for (_, right), answer in zip(drawn, answers, strict=True)]
    return hits, [
        (question, answer) for (question, _), answer, hit in zip(drawn, answers, hits, strict=True) if not hit
    ]


def is_json(text: str) -> bool:
    """Return whether the whole text parses."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def compiles(code: str) -> bool:
    """Return whether the text compiles as Python."""
    try:
        compile(code, "<demo>", "exec")
    except SyntaxError:
        return False
    return True


def whole_blocks(text: str) -> str:
    """Drop a last top-level block if another precedes it, else the last line: the token limit may have cut it."""
    return text.rpartition("\n\n\n")[0] or text.rpartition("\n")[0] + "\n"


def check_template(chat: Chat) -> None:
    """Raise if the shipped template and the format of the corpus differ."""
    messages = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    if chat.tokenizer.apply_chat_template(messages, tokenize=False) != chatml.render(messages):
        raise ValueError("the chat template does not render what the model was trained on")


def main() -> None:
    """Print the figures of the model card, then the conversations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    chat = Chat(parser.parse_args().folder)
    check_template(chat)
    rng = random.Random(654)

    small = [(a, op, b) for op in "+-" for a in range(21) for b in range(21)]
    print("a + b and a - b for 0..20:", share(sums_right(chat, small)))
    print('the same as "a+b":', share(sums_right(chat, small, "{a}{op}{b}")))
    print("a * b for 0..12:", share(sums_right(chat, [(a, "*", b) for a in range(13) for b in range(13)])))
    unseen = [(a, op, b) for op in "+-" for a in range(100) for b in range(100) if sums.held_out(a, b)]
    print("two-digit pairs never trained on:", share(sums_right(chat, rng.sample(unseen, 300))))

    hits, wrong = exact(chat, [shapes.row, shapes.pairs, shapes.keyed, shapes.nested], 400, 120)
    print("JSON copied exactly from the request:", share(hits))
    print("   for example wrong:", wrong[:4])
    asked = [
        rng.choices([make for _, make in shapes.EXCHANGES], [w for w, _ in shapes.EXCHANGES])[0](rng)[0]
        for _ in range(300)
    ]
    print("JSON that parses, all shapes:", share([is_json(answer) for answer in chat.ask(asked, 120)]))
    hits, wrong = exact(
        chat, [facts.day_or_month, facts.unit, facts.opposite, facts.animal, facts.letters, facts.repeat], 300, 80
    )
    print("facts, exactly:", share(hits))
    print("   for example wrong:", wrong[:6])
    hits, wrong = exact(chat, [sums.count, sums.compare, sums.word_sum, sums.three_numbers, sums.story_sum], 300, 100)
    print("counting, comparing, word problems, exactly:", share(hits))
    print("   for example wrong:", wrong[:6])

    words = ["marble", "harbor", "velvet", "thunder", "pepper", "lantern"]  # subjects that no list of the corpus has
    asked = [unknown.fill(rng, rng.choice(unknown.QUESTIONS), words) for _ in range(300)]
    answers = chat.ask(asked, 48)
    honest = [
        bool(re.search(r"not know|n't know|cannot answer|beyond me|too hard|not learned|can't help|understand", answer))
        for answer in answers
    ]
    print("out of scope, honestly declined:", share(honest))
    print("   otherwise:", [(q, a) for q, a, ok in zip(asked, answers, honest, strict=True) if not ok][:8])

    asked = [functions.write_function(rng)[0] for _ in range(200)]
    blocks = [re.search(r"```python\n(.*?)```", answer, re.S) for answer in chat.ask(asked, 220)]
    print("Python on request that compiles:", share([bool(block) and compiles(block.group(1)) for block in blocks]))
    completions = chat.complete(SNIPPETS, 96)
    print(
        "Python completions that compile:",
        share([compiles(whole_blocks(a + b)) for a, b in zip(SNIPPETS, completions, strict=True)]),
    )
    asked = [smalltalk.greeting(rng)[0] for _ in range(200)]
    print(
        "greetings answered with a greeting:",
        share([bool(re.match(r"(Hello|Hi|Hey|Good )", answer)) for answer in chat.ask(asked, 48)]),
    )

    for talk in TALK:
        print("-" * 60)
        messages: list[dict[str, str]] = []
        for said in talk:
            messages.append({"role": "user", "content": said})
            prompt = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            answer = chat.complete([prompt], 400)[0]
            messages.append({"role": "assistant", "content": answer})
            print(f"> {said}\n{answer}")
    for code, completion in zip(SNIPPETS[:4], completions, strict=False):
        print("-" * 60 + "\n" + code + completion)


if __name__ == "__main__":
    main()

"""The chat format: special tokens, the jinja template that ships, and the same format in Python for the corpus.

evaluate.py checks that the two agree.
"""

END_OF_TEXT = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
SPECIAL = [END_OF_TEXT, START, END]  # their ids are 0, 1, 2

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] | trim) + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def render(messages: list[dict[str, str]]) -> str:
    """Return the text of a whole chat."""
    return "".join(f"{START}{message['role']}\n{message['content'].strip()}{END}\n" for message in messages)

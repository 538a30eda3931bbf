"""Chat templates: equal to transformers' apply_chat_template, bounded, and with errors a client can read."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
import pytest

from rvllm.chat_template import ChatTemplate
from rvllm.errors import ConfigError, InvalidRequestError, ModelError
from tiny_tokenizers import DEMO, save

TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "chat_templates").glob("*.jinja")}
CHATML, GEMMA, MACROS = TEMPLATES["chatml"], TEMPLATES["gemma"], TEMPLATES["macros"]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "It's the <weather> & more, für alle",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "n": [1]}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [user("Hi, <b>you</b> & 日本!  ")],
    "turns": [user("a"), assistant(" b\n"), user("{{ c }}"), assistant("d"), user("e")],
    "system": [{"role": "system", "content": " Be brief. "}, user("a"), assistant("b"), user("c")],
    "thinking": [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("<think>x</think>y")],
    "reasoning": [user("a"), {"role": "assistant", "content": "b", "reasoning": "because"}],
    "tools": [
        user("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "17", "tool_call_id": "abcdefghi", "name": "weather"},
        assistant("17 degrees"),
        user("Thanks"),
    ],
}


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    directory = save("byte_level", tmp_path_factory.mktemp("tokenizer"))
    return AutoTokenizer.from_pretrained(directory)


@functools.cache
def compiled(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, {"bos_token": "<s>", "eos_token": "</s>"})


def both(theirs: Any, source: str, messages: list[dict[str, Any]], **options: Any) -> tuple[Any, Any]:
    """Render with transformers and with rvllm; an error is the class of outcome "refused"."""
    kwargs = options.pop("chat_template_kwargs", {})
    try:
        expected = theirs.apply_chat_template(messages, chat_template=source, tokenize=False, **options, **kwargs)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        expected = type(error)
    try:
        text = compiled(source).render(messages, **options, chat_template_kwargs=kwargs)
    except InvalidRequestError as error:
        text = type(error)
    return expected, text


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_same_as_transformers(name: str, chat: str, tokenizer_of: Any) -> None:
    messages = CHATS[chat]
    if name == "parts":  # transformers leaves the form of the content to the caller
        messages = [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m
            for m in messages
        ]
    n_equal = 0
    for tools in (None, TOOLS):
        for options in (
            {"add_generation_prompt": True},
            {"add_generation_prompt": False},
            {"add_generation_prompt": False, "continue_final_message": True},
            {"add_generation_prompt": True, "documents": [{"title": "T", "text": "x"}]},
            {"add_generation_prompt": True, "chat_template_kwargs": {"enable_thinking": False}},
            {"add_generation_prompt": True, "chat_template_kwargs": {"date_string": "1 Jan 2026", "bos_token": "B"}},
        ):
            expected, text = both(tokenizer_of, TEMPLATES[name], messages, tools=tools, **options)
            if isinstance(expected, str):
                assert text == expected
                n_equal += 1
            else:
                assert text is InvalidRequestError, (expected, options)
    assert n_equal > 0 or (name, chat) in {("gemma", "system"), *((n, "tools") for n in ("chatml", "gemma", "macros"))}


@pytest.mark.parametrize("chat", ["one", "turns", "system"])
def test_demo_model(chat: str) -> None:
    from transformers import AutoTokenizer

    template = ChatTemplate.from_dir(DEMO)
    assert template is not None
    expected = AutoTokenizer.from_pretrained(DEMO).apply_chat_template(
        CHATS[chat], tokenize=False, add_generation_prompt=True
    )
    assert template.render(CHATS[chat]) == expected


@pytest.mark.parametrize("text", ["tail", "tail  ", "\ntail \n", "", "   "])
@pytest.mark.parametrize("name", TEMPLATES)
def test_continued_message_ends_the_prompt(name: str, text: str, tokenizer_of: Any) -> None:
    if name == "parts":
        return
    options = {"add_generation_prompt": False, "continue_final_message": True}
    expected, ours = both(tokenizer_of, TEMPLATES[name], [user("a"), assistant(text)], **options)
    assert ours == (expected if isinstance(expected, str) else InvalidRequestError)


def render(source: str, messages: list[dict[str, Any]] | None = None, **options: Any) -> str:
    return compiled(source).render(messages or [user("hi")], **options)


def test_template_refuses_in_its_own_words() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        render(GEMMA, CHATS["system"])
    assert str(caught.value) == "System role not supported"
    assert caught.value.param == "messages"


# Content, tool calls and options


def test_content_as_parts_becomes_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    assert render("{{ messages[0].content }}", [{"role": "user", "content": parts}]) == "a\nb\nc"


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        ("for m in messages %}{% for p in m['content']", "[a][b][c]"),
        ("for m in messages %}{% for p in m.content", "[a][b][c]"),
        ("for m in messages[0:] %}{% set c = m.content %}{% for p in c | list", "[a][b][c]"),
        ("set ms = messages %}{% for m in ms %}{% for p in m.content", "[a][b][c]"),
        ("set ns = namespace(m=0) %}{% for m in messages %}{% set ns.c = m.content %}{% for p in ns.c", "[a][b][c]"),
        ("macro f(c) %}{% for p in c %}[{{ p.text }}]{% endfor %}{% endmacro %}{% for m in messages %}"
         "{{ f(m.content) }}{% for p in []", "[a][b][c]"),
        ("for m in messages %}({{ m.content }}){% for p in m.tool_calls", "(a\nb)(c)"),
        ("for m in messages %}({{ m.content.split('\n')[-1] }}){% for p in []", "(b)(c)"),
    ],
)  # fmt: skip
def test_form_of_content_follows_the_template(loop: str, expected: str) -> None:
    """Parts where the template loops over content, text where it does not."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]
    source = "{% " + loop + " %}[{{ p.text }}]{% endfor %}{% endfor %}"
    assert render(source, messages) == expected


def test_template_for_both_forms_gets_what_the_client_sent() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    text = render(MACROS, [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}])
    assert text.startswith("1: USER a + b!</s>\n2: ASSISTANT c!</s>\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "'image_url' is not supported"),
        ([{"type": "text"}], "has no text"),
        ([{"type": "text", "text": 1}], "has no text"),
        ([7], "'int' is not supported"),
    ],
)
def test_content_that_is_not_text(content: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        render(CHATML, [{"role": "user", "content": content}])


def test_tool_arguments_are_parsed() -> None:
    source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"

    def text(arguments: Any) -> str:
        call = {"id": "x", "function": {"name": "f", "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        prompt = render(source, [message])
        assert call["function"]["arguments"] == arguments, "the caller's message is left alone"
        return prompt

    assert text('{"a": "ü"}') == text({"a": "ü"}) == '{"a": "ü"}'
    assert text("") == text(None) == "{}"
    with pytest.raises(InvalidRequestError, match="arguments of the tool call 'f' are not JSON"):
        text("{")
    assert (
        render("{{ 'tool_calls' in messages[0] }}", [{"role": "assistant", "content": "", "tool_calls": []}]) == "False"
    )


def test_options_that_cannot_be() -> None:
    template = ChatTemplate({"default": CHATML})
    for options, says in (
        ({"continue_final_message": True}, "exclude each other"),
        ({"chat_template_kwargs": {"messages": []}}, "may not hold messages"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            template.render([user("x")], **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="messages is empty"):
        template.render([])
    for source, message in ((CHATML, {"role": "assistant"}), ("nothing", assistant("text"))):
        with pytest.raises(InvalidRequestError, match="continue_final_message"):
            render(source, [message], continue_final_message=True, add_generation_prompt=False)


# Where templates come from


def test_sources_and_their_order(tmp_path: Path) -> None:
    assert ChatTemplate.from_dir(tmp_path) is None

    def now(**options: Any) -> str:
        template = ChatTemplate.from_dir(tmp_path)
        assert template is not None
        return template.render([user("x")], **options)

    (tmp_path / "chat_template.json").write_text('{"chat_template": "from json"}')
    assert now() == "from json"
    entries = [{"name": "default", "template": "plain {{ eos_token }}"}, {"name": "tool_use", "template": "with tools"}]
    settings = {"chat_template": entries, "eos_token": {"content": "</s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert now() == "plain </s>"
    assert now(tools=TOOLS) == "with tools"
    (tmp_path / "chat_template.jinja").write_text("from a file {{ eos_token }}")
    assert now(tools=TOOLS) == "from a file </s>"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools from a file")
    assert now(tools=TOOLS) == "tools from a file"
    assert now() == "from a file </s>"


def test_override(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "own", "bos_token": "<s>"}')
    other = tmp_path / "other.jinja"
    other.write_text("other {{ bos_token }}")
    for override in (str(other), "other {{ bos_token }}", "other {{ bos_token }}" + "{# long #}" * 1000):
        template = ChatTemplate.from_dir(tmp_path, override)
        assert template is not None
        assert template.render([user("x")]) == "other <s>"
    with pytest.raises(ConfigError, match="no such file"):
        ChatTemplate.from_dir(tmp_path, "missing.jinja")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("chat_template.jinja", "{% for %}", "chat_template.jinja: the chat template cannot be compiled"),
        ("chat_template.jinja", b"\xff", "chat_template.jinja: cannot be read"),
        ("tokenizer_config.json", '{"chat_template": 7}', "tokenizer_config.json: chat_template is neither"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x"}]}', "tokenizer_config.json: chat_template is"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x", "template": "y"}]}', "named default"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
    ],
)
def test_broken_files_are_named(name: str, content: str | bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ModelError, match=says):
        ChatTemplate.from_dir(tmp_path)

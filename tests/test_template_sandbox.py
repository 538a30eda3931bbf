"""The sandbox of chat templates: what templates may not touch, and bounds on time and size."""

from __future__ import annotations

import time

import pytest

from rvllm.chat_template import ChatTemplate
from rvllm.errors import InvalidRequestError


def render(source: str, **variables: object) -> str:
    template = ChatTemplate({"default": source})
    return template.render([{"role": "user", "content": "hi"}], chat_template_kwargs=variables)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ messages[9].content.x }}", "undefined|no element"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% include 'x' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ namespace(__class__=1) }}", "underscore"),
        ("{{ lipsum() }}", "undefined"),
    ],
)
def test_errors_inside_the_template(source: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"the chat template failed.*({says})"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [1] recursive %}{% if loop.depth < 60 %}{{ loop([1]) }}{{ loop([1]) }}{% endif %}{% endfor %}",
    ],
)
def test_endless_templates_are_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvllm.template_sandbox.MAX_RENDER_S", 0.2)
    start = time.monotonic()
    with pytest.raises(InvalidRequestError, match="longer than"):
        render(source)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10 ** 9 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 7 ** 999999999 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x\ny' | indent(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ ('x' * 10000).replace('x', 'y' * 10000) }}",
        "{{ ('x' * 10000) | replace('x', 'y' * 10000) }}",
        "{{ [1] | batch(1000000000, 0) | list }}",
        "{{ (['x' * 10000] * 10000) | join }}",
        "{{ ('x' * 10000).join(['y'] * 10000) }}",
        "{% set ns = namespace(x='abc') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='abc') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% for i in range(20000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set x %}{% for i in range(20000) %}{{ 'x' * 1000 }}{% endfor %}{% endset %}{{ x | length }}",
        "{{ 1 | tojson(indent=1000000000) }}",
        "{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    ],
)
def test_large_texts_are_refused(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(InvalidRequestError, match=r"more than 16 MB|too large a number"):
        render(source)
    assert time.monotonic() - start < 2


def test_bounds_leave_ordinary_templates_alone() -> None:
    source = "{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ '%03d' % 7 }}{{ '{:>4}'.format('x') }}{{ 'a-b'.replace('-', '+') }}"
    assert render(source + "{{ [1, 2] | join('.') }}{{ 'x\ny' | indent(2) }}") == "ababab1024007   xa+b1.2x\n  y"
    assert len(render("{% for i in range(n) %}{{ text ~ i }}{% endfor %}", n=5000, text="x" * 1000)) > 5_000_000


def test_clock_starts_anew_for_every_render(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvllm.template_sandbox.MAX_RENDER_S", 0.2)
    template = ChatTemplate({"default": "{% for a in range(n) %}{% endfor %}ok"})
    start = time.monotonic()
    while time.monotonic() - start < 0.5:
        assert template.render([{"role": "user"}], chat_template_kwargs={"n": 10_000}) == "ok"


def test_late_render_leaves_no_clock_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvllm.template_sandbox.MAX_RENDER_S", 0.0)
    with pytest.raises(InvalidRequestError, match="longer than"):
        render("{% for a in range(9) %}{% endfor %}")
    monkeypatch.undo()
    assert render("{% for a in range(9) %}{{ a }}{% endfor %}") == "012345678"

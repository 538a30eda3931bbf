"""The jinja2 environment of chat templates: transformers' one, with bounds on time and size.

Templates come with the model, or in a request from a trusted client, so they are not hostile, but they can be wrong.
Every loop turn and macro call passes a check of the clock, inserted into the syntax tree, and everything that
concatenates or repeats strings refuses results beyond the limit before making them. A template written to attack
(say, printing a deeply shared list) can still take more: that is why requests may not bring one by default.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.filters import do_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_RENDERED_CHARS = 16 << 20
MAX_RENDER_S = 2.0
_MAX_INT_BITS = 1 << 14
# Filters with names that a template cannot spell.
_TICK, _CONCAT = " tick", " concat"


class TemplateRefusal(jinja2.TemplateError):
    """A template called raise_exception: its message is meant for the user."""


class TemplateLimitError(jinja2.TemplateError):
    """A template ran too long or made too much text."""


class _Deadline(threading.local):
    at: float = float("inf")

    def check(self) -> None:
        if time.monotonic() > self.at:
            raise TemplateLimitError(f"it takes longer than {MAX_RENDER_S:g} s")


_deadline = _Deadline()


def _check_size(n_chars: int) -> None:
    if n_chars > MAX_RENDERED_CHARS:
        raise TemplateLimitError(f"it makes a text of more than {MAX_RENDERED_CHARS >> 20} MB")


@jinja2.pass_context  # also keeps the compiler from evaluating it once, in advance
def _tick(context: Any, value: None) -> None:
    _deadline.check()


def _concat(parts: Iterable[Any]) -> str:
    texts = [part if type(part) is str else str(part) for part in parts]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


class _Bounds(NodeTransformer):
    """Put a check of the clock into loops, macros and blocks, and the bounded concatenation in place of `~`."""

    def _ticking(self, node: Any) -> Any:
        self.generic_visit(node)
        tick = nodes.Filter(nodes.Const(None), _TICK, [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(tick).set_lineno(node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _ticking

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), _CONCAT, [], [], None, None).set_lineno(node.lineno)


class _GenerationTag(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %} marks what the assistant says, for training: here only its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(lineno)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class _Namespace(jinja2.utils.Namespace):
    """The global `namespace`, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # as jinja2's: a template may say namespace(self=...)
        self, *rest = args
        jinja2.utils.Namespace.__init__(self)
        for name, value in dict(*rest, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}: it begins with an underscore")
        super().__setitem__(name, value)


class _Dict:
    """The global `dict`, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compile chat templates as transformers does; see the module's text for the bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_concat)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.globals |= {"dict": _Dict(), "namespace": _Namespace}
        self.binop_table |= {"+": _add, "*": _multiply, "**": _power, "%": _modulo}
        for name in ("batch", "center", "format", "indent", "replace", "slice", "truncate", "wordwrap"):
            self.filters[name] = _bounded_filter(self.filters[name])
        self.filters |= {"tojson": _tojson, "join": _join, _TICK: _tick, _CONCAT: _concat}

    def compile_tree(self, tree: nodes.Template) -> jinja2.Template:
        """Compile what parse() returned; the tree is used up."""
        return jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Bounds().visit(source), *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr == "translate")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # str.format comes wrapped
        if isinstance(owner, str):
            _check_growth(owner, __obj.__name__, (*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def render(self, template: jinja2.Template, variables: dict[str, Any]) -> str:
        """Render within MAX_RENDER_S and MAX_RENDERED_CHARS. Raises jinja2.TemplateError, or what the template hit."""
        _deadline.at = time.monotonic() + MAX_RENDER_S
        try:
            parts, n_chars = [], 0
            for part in template.generate(variables):
                n_chars += len(part)
                _check_size(n_chars)
                parts.append(part)
            return "".join(parts)
        finally:
            _deadline.at = float("inf")


_SEQUENCES = (str, list, tuple)


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
        _check_size(len(left) + len(right))
    return left + right


def _multiply(left: Any, right: Any) -> Any:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, _SEQUENCES) and isinstance(count, int):
            _check_size(len(sequence) * count)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    return left * right


def _power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))
    return left**right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        _check_growth(left, "format", right if isinstance(right, tuple) else (right,))
    return left % right


def _check_bits(n_bits: int) -> None:
    if n_bits > _MAX_INT_BITS:
        raise TemplateLimitError("it computes too large a number")


def _check_growth(text: str, method: str, args: Sequence[Any]) -> None:
    """Refuse a string operation before it makes too long a result: by a number as large, or by multiplying texts."""
    for arg in args:
        if isinstance(arg, int):
            _check_size(arg * (text.count("\n") + 1) if method == "indent" else arg)
    if method == "replace" and len(args) > 1 and isinstance(args[1], str):
        _check_size(len(text) + (text.count(args[0]) if isinstance(args[0], str) else 0) * len(args[1]))
    elif method == "join" and args and isinstance(args[0], list | tuple):
        _check_size(sum(len(text) + len(part) for part in args[0] if isinstance(part, str)))
    elif method.startswith("format") or method == "expandtabs":
        width = "".join(char if char.isdigit() else " " for char in text).split()
        for digits in width:
            _check_size(MAX_RENDERED_CHARS + 1 if len(digits) > 9 else int(digits))


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    n_context = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        value, *rest = args[n_context:]
        _check_growth(str(value) if isinstance(value, str) else "", function.__name__[3:], (*rest, *kwargs.values()))
        return function(*args, **kwargs)

    return bounded


@jinja2.pass_eval_context
def _join(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    parts, n_chars = [], 0
    for part in value:
        n_chars += len(d) + (len(part) if isinstance(part, str) else 0)
        _check_size(n_chars)
        parts.append(part)
    return do_join(eval_ctx, parts, d, attribute)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    if isinstance(indent, int):
        _check_size(indent)
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: Any) -> None:
    raise TemplateRefusal(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)

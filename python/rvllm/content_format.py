"""Tell whether a chat template takes message content as a list of parts or as text, from its syntax tree.

As vLLM does: it takes parts when it loops over the content of a message. Followed are `set` aliases, filters, tests,
slices and the parameters of macros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jinja2 import nodes

ContentFormat = Literal["text", "parts", "either"]


def content_format(template: nodes.Template) -> ContentFormat:
    """Return what form of message content the template handles."""
    if not _loops_over_content(template):
        return "text"
    return "either" if any(test.name == "string" for test in template.find_all(nodes.Test)) else "parts"


def _loops_over_content(template: nodes.Template) -> bool:
    chats: set[str] = {"messages"}
    messages: set[str] = set()
    contents: set[str] = set()
    while True:
        before = len(chats) + len(messages) + len(contents)
        for target, value in _bindings(template):
            if _refers(value, chats):
                chats.add(target)
            elif _is_content(value, messages) or _refers(value, contents):
                contents.add(target)
            elif _is_element(value, chats) or _refers(value, messages):
                messages.add(target)
        for loop in template.find_all(nodes.For):
            if _is_content(loop.iter, messages) or _refers(loop.iter, contents):
                return True
            if isinstance(loop.target, nodes.Name) and _refers(loop.iter, chats):
                messages.add(loop.target.name)
        if before == len(chats) + len(messages) + len(contents):
            return False


def _bindings(template: nodes.Template) -> Iterator[tuple[str, nodes.Node]]:
    """Yield (name, expression) of every `set` and of every argument of a call of a macro."""
    for assign in template.find_all(nodes.Assign):
        if isinstance(assign.target, nodes.Name):
            yield assign.target.name, assign.node
        elif isinstance(assign.target, nodes.NSRef):
            yield f"{assign.target.name}.{assign.target.attr}", assign.node
    macros = {macro.name: macro for macro in template.find_all(nodes.Macro)}
    for call in template.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in macros:
            names = [arg.name for arg in macros[call.node.name].args]
            yield from zip(names, call.args, strict=False)
            yield from ((keyword.key, keyword.value) for keyword in call.kwargs if keyword.key in names)


def _unwrapped(node: nodes.Node | None) -> nodes.Node | None:
    """Strip filters, tests and slices: what they act on is what they are about."""
    while True:
        if isinstance(node, nodes.Filter | nodes.Test) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _refers(node: nodes.Node | None, names: set[str]) -> bool:
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}" in names
    return isinstance(node, nodes.Name) and node.name in names


def _is_content(node: nodes.Node | None, messages: set[str]) -> bool:
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr):
        return node.attr == "content" and _refers(node.node, messages)
    return (
        isinstance(node, nodes.Getitem)
        and isinstance(node.arg, nodes.Const)
        and node.arg.value == "content"
        and _refers(node.node, messages)
    )


def _is_element(node: nodes.Node | None, chats: set[str]) -> bool:
    return isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice) and _refers(node.node, chats)

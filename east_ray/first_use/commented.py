"""A setting into the text of a YAML file, whose comments and order stay.

>>> with_setting("training:\\n  epochs: 3    # of the paper\\n", "training.epochs", 1)
'training:\\n  epochs: 1    # of the paper\\n'
>>> with_setting("questions: {path: q.jsonl}\\n", "questions.id_column", "id")
'questions: {path: q.jsonl, id_column: id}\\n'
"""

from typing import Any

import yaml


def in_line(value: Any) -> str:
    """A value as YAML in one line, quoted where it must be inside { }."""
    text = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.strip()[1:-1]


def with_setting(text: str, dotted_key: str, value: Any) -> str:
    """The text with a value at a dotted key: in place of what is there, else at the end of the innermost section."""
    node: Any = yaml.compose(text)
    names = dotted_key.split(".")
    while names and isinstance(node, yaml.MappingNode):
        inside = next((there for key, there in node.value if key.value == names[0]), None)
        if inside is None:
            return _added(text, node, names[0], _nested(names[1:], value))
        node, names = inside, names[1:]
    return text[: node.start_mark.index] + in_line(_nested(names, value)) + text[_end(node) :]


def _nested(names: list[str], value: Any) -> Any:
    for name in reversed(names):
        value = {name: value}
    return value


def _added(text: str, section: yaml.MappingNode, name: str, value: Any) -> str:
    item = in_line({name: value})[1:-1]
    if section.flow_style:
        end = section.end_mark.index - 1
        return f"{text[:end]}{', ' if section.value else ''}{item}{text[end:]}"
    end = text.index("\n", _end(section))
    return f"{text[:end]}\n{' ' * section.start_mark.column}{item}{text[end:]}"


def _end(node: yaml.Node) -> int:
    """Where a value ends; that of a block is the end of its last one, before comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return int(node.end_mark.index)

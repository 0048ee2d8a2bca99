"""YAML text -> plain values and the line of each. The only importer of PyYAML, and it uses its parser alone.

The tree is built here from parse events, so that no tag can make an object, nesting and aliases are bounded before
they cost anything, and a plain scalar that YAML 1.1 and YAML 1.2 read differently is refused: every editor and tool
then sees what the gateway sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from gateway.config.problems import ConfigError, Loc, Problem, dotted, is_secret

LIMIT_BYTES = 8 * 1024 * 1024
_DEPTH = 32
_VALUES = 1_000_000
_NUMBER_LENGTH = 40
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_BOOL_11 = re.compile(r"(?:yes|no|on|off)\Z", re.IGNORECASE)
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?\Z")
_AMBIGUOUS = re.compile(
    r"""[-+]?(?:0[0-9_]+ | [0-9][0-9_]*_[0-9_]* | 0[box][0-9a-fA-F_]+          # octal, binary, hexadecimal, 1_000
    | [0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?                              # base 60
    | [0-9][0-9_]*\.[0-9_]*_[0-9_]* | \.[0-9_]+(?:[eE][-+]?[0-9]+)? | (?:[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+
    | \.(?:inf|Inf|INF|nan|NaN|NAN))\Z
    | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt\ \t].*)?\Z | =\Z                    # dates, the value key""",
    re.VERBOSE,
)


@dataclass(slots=True)
class Node:
    """A value and where it starts (from 1); `keys` has the places of a mapping's keys."""

    data: Any
    line: int
    column: int
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    weight: int = 1
    height: int = 0

    def add(self, name: str | int, child: Node) -> None:
        """Put a value below this one."""
        self.children[name] = child
        self.height = max(self.height, child.height + 1)


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed file."""

    file: Path
    root: Node

    def find(self, loc: Loc) -> Node | None:
        """The node at a place; None when there is none."""
        node: Node | None = self.root
        for part in loc:
            node = node.children.get(part) if node else None
        return node

    def problem(self, loc: Loc, message: str, fix: str) -> Problem:
        """A problem at a place, or at the nearest place above it that the file has."""
        line, column = self.root.line, self.root.column
        node: Node | None = self.root
        for part in loc:
            if node is None:
                break
            parent, node = node, node.children.get(part)
            if isinstance(part, str) and part in parent.keys:
                line, column = parent.keys[part]
            elif node is not None:
                line, column = node.line, node.column
        return Problem(self.file, line, column, dotted(loc), message, fix)


def parse(text: bytes, file: Path) -> Document:
    """Parse one file's bytes. Raises `ConfigError`, and nothing else, for whatever is no plain, bounded YAML."""
    if len(text) > LIMIT_BYTES:
        message = f"The file is larger than {LIMIT_BYTES >> 20} MiB."
        raise ConfigError([Problem(file, 0, 0, "", message, "Split the services over several gateways.")])
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, 1, "", "This is not UTF-8.", "Save the file as UTF-8.")]) from None
    builder = _Builder(file)
    try:
        root = builder.build(yaml.parse(decoded, Loader=_PARSER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        # What stands in quotes in the parser's message can be a piece of a value.
        what = re.split(r"['\"]", error.problem or "this is not YAML", maxsplit=1)[0].strip()
        fix = "Check the indentation, the colons and the quotes here."
        raise ConfigError([Problem(file, line, column, "", f"YAML: {what}.", fix)]) from None
    except yaml.YAMLError:
        message = "The file holds a control character."
        raise ConfigError([Problem(file, 1, 1, "", message, "Save the file as plain UTF-8 text.")]) from None
    if builder.problems:
        raise ConfigError(builder.problems)
    return Document(file, root)


class _Builder:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.anchors: dict[str, Node | None] = {}
        self.count = 0

    def build(self, events: Any) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                self._stop(event, (), "A second document starts here.", "Keep one document in the file.")
            if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent, yaml.AliasEvent)):
                root = self._node(event, events, ())
        if root is None:
            message, fix = "The file is empty.", "Run `gateway init` for a file to start from."
            raise ConfigError([Problem(self.file, 1, 1, "", message, fix)])
        return root

    def _note(self, event: Any, loc: Loc, message: str, fix: str) -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, dotted(loc), message, fix))

    def _stop(self, event: Any, loc: Loc, message: str, fix: str) -> NoReturn:
        self._note(event, loc, message, fix)
        raise ConfigError(self.problems)

    def _node(self, event: Any, events: Any, loc: Loc) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, loc)
        if event.tag is not None:
            self._stop(event, loc, "YAML tags are not used here.", "Remove the word that starts with `!`.")
        self._deep(event, loc, 0)
        if event.anchor:
            self.anchors[event.anchor] = None
        mark = event.start_mark
        node = Node(None, mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            node.data = self._scalar(event, loc) if event.implicit[0] else event.value
            if isinstance(node.data, str) and _CONTROL.search(node.data):
                self._note(event, loc, "The text holds a control character.", "Remove it.")
        elif isinstance(event, yaml.SequenceStartEvent):
            self._sequence(node, events, loc)
        else:
            self._mapping(node, events, loc)
        self._weigh(event, loc, 1)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _weigh(self, event: Any, loc: Loc, weight: int) -> None:
        self.count += weight
        if self.count > _VALUES:
            self._stop(event, loc, "The file stands for too many values.", "Use fewer aliases.")

    def _deep(self, event: Any, loc: Loc, height: int) -> None:
        if len(loc) + height > _DEPTH:
            self._stop(event, loc[:3], f"This is nested deeper than {_DEPTH} levels.", "Remove the nesting.")

    def _alias(self, event: Any, loc: Loc) -> Node:
        node = self.anchors.get(event.anchor)
        if node is None:
            where = "inside itself" if event.anchor in self.anchors else "before its anchor"
            self._stop(event, loc, f"An alias is used {where}.", "Write the anchor (&name) further up.")
        self._deep(event, loc, node.height)
        self._weigh(event, loc, node.weight)
        return node

    def _sequence(self, node: Node, events: Any, loc: Loc) -> None:
        node.data = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            child = self._node(event, events, (*loc, len(node.data)))
            node.add(len(node.data), child)
            node.data.append(child.data)
            node.weight += child.weight

    def _mapping(self, node: Node, events: Any, loc: Loc) -> None:
        node.data = {}
        merged: list[Node] = []
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if isinstance(event, yaml.CollectionStartEvent):
                self._stop(event, loc, "A key must be text.", "Write `name: value`.")
            key = self._node(event, events, loc)
            name = key.data
            if not isinstance(name, str):
                self._note(event, loc, "A key must be text.", "Put the key in quotes.")
                name = f"line {key.line}"
            child = self._node(next(events), events, (*loc, name))
            node.weight += child.weight
            if name == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                merged += self._merge_sources(event, child, loc)
                continue
            if name in node.data:
                shown = "A key" if is_secret((*loc, name)) else f"The key `{name[:80]}`"
                first = node.keys[name][0]
                self._note(event, loc, f"{shown} stands here twice (first in line {first}).", "Keep one of them.")
            node.data[name], node.keys[name] = child.data, (key.line, key.column)
            node.add(name, child)
        for source in merged:
            for name in source.data.keys() - node.data.keys():
                node.data[name], node.keys[name] = source.data[name], source.keys[name]
                node.add(name, source.children[name])

    def _merge_sources(self, event: Any, child: Node, loc: Loc) -> list[Node]:
        sources = list(child.children.values()) if isinstance(child.data, list) else [child]
        if not all(isinstance(source.data, dict) for source in sources):
            self._note(event, loc, "`<<` can only take in mappings.", "Write `<<: *anchor` of a mapping.")
            return []
        return sources

    def _scalar(self, event: Any, loc: Loc) -> Any:
        text: str = event.value
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if len(text) <= _NUMBER_LENGTH:
            if _INT.match(text):
                return int(text)
            if _FLOAT.match(text) and abs(float(text)) != float("inf"):
                return float(text)
        if is_secret(loc):
            return text
        if _BOOL_11.match(text):
            word = "true" if text.lower() in {"yes", "on"} else "false"
            message = f"`{text}` is a truth value to some YAML readers and a word to others."
            self._note(event, loc, message, f'Write {word}, or put it in quotes: "{text}".')
        elif _AMBIGUOUS.match(text):
            message = "YAML readers disagree whether this is a number, a time or text."
            self._note(event, loc, message, 'Write a plain number, or put it in quotes: "...".')
        return text

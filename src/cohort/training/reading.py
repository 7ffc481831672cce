"""YAML as it is meant: true and false alone are true and false, 010 is ten, and nothing stands in a file twice."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from cohort.errors import UsageError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core values instead of 1.1's: there `no` is false, 1:30 is 90, 010 is 8, and 1e-4 is a text."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            name, mark = event.anchor, event.start_mark
            # A few lines of lists of aliases of lists stand for more values than memory holds.
            if not isinstance(self.anchors.get(name, yaml.ScalarNode("", "")), yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"*{name} stands for a list or a mapping: write it out", mark
                )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than a text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def write_yaml(value: Any) -> str:
    """A value as a text that `read_yaml` reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(text: str, where: str) -> Any:
    """The value that a text holds.

    Args:
        where: what to call the text in messages.

    Raises:
        UsageError: it is malformed, holds a key twice, or stands for more than is written.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None and "\n" in text.strip() else ""
        raise UsageError(f"{where}{line}: malformed YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: malformed YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: it is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise UsageError(f"{where}: {error}") from error

"""JSON schemas: whether a value satisfies one, and what share of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from cohort.errors import UsageError, shown
from cohort.signals.patterns import Budget, compiled

WHAT = 'a JSON schema such as {"type": "object", "required": ["answer"]}'
# Keywords whose failure is seen in the parts of an object or a list, or that say what those parts are.
_PARTS = frozenset({"required", "properties", "items", "prefixItems", "$ref"})
# References that are followed on the way to one value: a schema may refer to itself.
_DEEPEST = 32
Finds = Callable[[str, str], bool]


class Schema:
    """A schema that values are compared with. Patterns in it have a time limit, and nothing is fetched for it.

    Args:
        text: the schema as JSON.

    Raises:
        UsageError: it is no schema, refers to what is not in it, or holds what is no regular expression.
    """

    def __init__(self, text: str) -> None:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, extend, validator_for
        from jsonschema_specifications import REGISTRY
        from referencing.jsonschema import DRAFT202012, specification_with

        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"no JSON: {error}; expected {WHAT}") from error
        if not isinstance(schema, (dict, bool)):
            raise UsageError(f"expected {WHAT}, got {shown(schema)}")
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            place = "/".join(map(str, error.absolute_path))
            raise UsageError(f"no schema{f' at {place}' if place else ''}: {error.message}") from error
        named = schema.get("$schema") if isinstance(schema, dict) else None
        draft = specification_with(str(named), default=DRAFT202012) if named else DRAFT202012
        self._resolver: Any = REGISTRY.resolver_with_root(draft.create_resource(schema))
        self._check(schema)
        rules: dict[str, Callable[..., Iterator[Any]]] = {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional,
        }
        limited = extend(kind, {name: partial(rule, self.finds) for name, rule in rules.items()})
        self.schema = schema
        self.budget = Budget()
        self._validator = limited(schema, registry=REGISTRY, format_checker=kind.FORMAT_CHECKER)

    def _check(self, schema: Any) -> None:
        """References lead somewhere, and patterns are some."""
        if isinstance(schema, Mapping):
            if isinstance(schema.get("$ref"), str) and "$id" not in schema:
                self._target(schema["$ref"])
            patterns = schema.get("patternProperties")
            for pattern in (*(patterns if isinstance(patterns, Mapping) else ()), schema.get("pattern")):
                if isinstance(pattern, str):
                    # What the library takes for one, the one that matches may not.
                    compiled(pattern, f"pattern {shown(pattern)}")
        for part in (
            schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, (list, tuple)) else ()
        ):
            self._check(part)

    def _target(self, reference: str) -> Any:
        from referencing.exceptions import Unresolvable

        try:
            return self._resolver.lookup(reference).contents
        except Unresolvable as error:
            raise UsageError(
                f"{shown(reference)} refers to what is not in the schema: put it under $defs, nothing is fetched"
            ) from error

    def finds(self, pattern: str, text: str) -> bool:
        """A pattern of the schema matches somewhere in a text, in the time that `budget` has.

        Raises:
            TimeoutError: it takes longer.
        """
        return self.budget.match(compiled(pattern, "schema"), text)

    def holds(self, value: Any) -> bool:
        """The value satisfies the schema. What cannot be decided, for its depth or the time a pattern takes, does not."""
        try:
            return bool(self._validator.is_valid(value))
        except (RecursionError, TimeoutError):
            return False

    def share(self, value: Any) -> float:
        """How much of the schema the value satisfies, from 0 to 1; 1 if and only if it holds.

        An object is the mean over its parts: a property that the schema names and that is there or required, of which
        each is judged in the same way, and 0 for every other rule that it breaks. So is a list, over its elements. What
        is of another type than the schema asks for is 0, as is a required property that is not there.
        """
        try:
            got = self._share(value, self.schema, 0)
        except (RecursionError, TimeoutError):
            return 0.0
        # Rules that the parts do not show, as anyOf deep within, keep it below full marks.
        return 1.0 if self.holds(value) else min(got, 0.99)

    def _share(self, value: Any, schema: Any, depth: int) -> float:
        if isinstance(schema, Mapping) and isinstance(schema.get("$ref"), str) and depth < _DEEPEST:
            target = self._target(schema["$ref"])
            return self._share(value, target, depth + 1)
        whole = self._validator.evolve(schema=schema)
        parts = list(self._parts(value, schema)) if isinstance(schema, Mapping) else []
        if depth >= _DEEPEST or not parts:
            return float(whole.is_valid(value))
        errors = list(whole.iter_errors(value))
        if any(error.validator == "type" and not error.path for error in errors):
            return 0.0
        shares = [self._share(part, rule, depth + 1) if there else 0.0 for there, part, rule in parts]
        broken = sum(error.validator not in _PARTS and not error.path for error in errors)
        return sum(shares) / (len(shares) + broken)

    def _parts(self, value: Any, schema: Mapping[str, Any]) -> Iterator[tuple[bool, Any, Any]]:
        """What of an object or a list is judged by itself: whether it is there, its value, its schema."""
        if isinstance(value, Mapping):
            named = schema.get("properties", {})
            for key in dict.fromkeys((*schema.get("required", ()), *(key for key in named if key in value))):
                yield key in value, value.get(key), named.get(key, True)
        elif isinstance(value, list):
            first = schema.get("prefixItems", ())
            for place, each in enumerate(value):
                rule = first[place] if place < len(first) else schema.get("items", True)
                yield True, each, rule


def _pattern(finds: Finds, validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not finds(pattern, value):
        yield ValidationError(f"{shown(value)} does not match {shown(pattern)}")


def _pattern_properties(
    finds: Finds, validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any
) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for pattern, rule in patterns.items():
            for key in value:
                if finds(pattern, key):
                    yield from validator.descend(value[key], rule, path=key, schema_path=pattern)


def _additional(finds: Finds, validator: Any, rule: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not isinstance(value, Mapping):
        return
    patterns = schema.get("patternProperties", {})
    for key in value:
        if key in schema.get("properties", {}) or any(finds(pattern, key) for pattern in patterns):
            continue
        if rule is False:
            yield ValidationError(f"{shown(key)} is none of the properties")
        else:
            yield from validator.descend(value[key], rule, path=key)


@lru_cache(maxsize=1024)
def _known(text: str) -> Schema:
    return Schema(text)


def schema_of(value: Any, where: str) -> Schema:
    """The schema that a column holds, as an object or as JSON.

    Args:
        where: what to call it in messages.

    Raises:
        UsageError: it is none.
    """
    if value is None or value == "":
        raise UsageError(f"{where}: expected {WHAT}, got nothing")
    try:
        return _known(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def schema_in(file: str, where: str) -> Schema:
    """The schema in a file.

    Raises:
        UsageError: there is no such file, or it holds no schema.
    """
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{where}: the schema {shown(file)} cannot be read: {error}") from error
    return schema_of(text, f"{where}: {file}")

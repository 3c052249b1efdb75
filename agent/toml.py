"""A TOML file as frozen values of a given shape, or every fault in it, each with its key path.

A shape is a dataclass of dataclasses; cattrs walks it. The only room that knows it.
"""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import cattrs
from cattrs.errors import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn

from agent.errors import ConfigError

T = TypeVar("T")
Readers = Mapping[Any, Callable[[Any, Any], Any]]


def parse(path: Path) -> dict[str, Any]:
    """The document at `path`; ConfigError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(["is not UTF-8 text"], str(path)) from None
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: of numbers and nesting without end others tell.
        raise ConfigError([f"is not TOML: {error}"], str(path)) from None


def shaped(
    document: Mapping[str, Any], shape: type[T], readers: Readers
) -> tuple[T | None, list[str]]:
    """`document` as a `shape`, with a reader for each kind of value in it; and its faults."""
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook_factory(is_dataclass, lambda kind: _table(converter, kind))
    for kind, reader in readers.items():
        converter.register_structure_hook(kind, reader)
    try:
        return converter.structure(document, shape), []
    except BaseValidationError as error:
        return None, list(_faults(error, ""))


def _table(converter: cattrs.Converter, kind: Any) -> Callable[[Any, Any], Any]:
    """A reader for a table of this shape and no other key.

    Where the shape names its `SHORT` key, a text alone is that key's value: `poll = "1m"` is short
    for `poll = { interval = "1m" }`.
    """
    structure = make_dict_structure_fn(
        kind, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True
    )
    short = getattr(kind, "SHORT", None)

    def read(value: object, _: object) -> Any:
        if short and isinstance(value, str):
            value = {short: value}
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {value!r}")
        return structure(value, kind)

    return read


# ---- faults -----------------------------------------------------------------------------------


def _faults(error: BaseException, path: str) -> Iterator[str]:
    """Each fault in what cattrs raised, with its key path."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        noted, others = error.group_exceptions()
        for inner in others:
            yield from _faults(inner, path)
        for inner, note in noted:
            yield from _faults(inner, _join(path, note))
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [one.name for one in fields(error.cl)] if error.cl else []
        for key in sorted(error.extra_fields):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            yield f"{_dotted(path, key)}: unknown key; {hint}"
    elif isinstance(error, KeyError):
        yield f"{path}: is missing"
    elif isinstance(error, TypeError | AttributeError):
        yield f"{path}: must be a table or a list of tables; agent.toml.example shows it"
    else:
        yield f"{path}: {error}"


def _join(path: str, note: AttributeValidationNote | IterableValidationNote) -> str:
    if isinstance(note, AttributeValidationNote):
        return _dotted(path, note.name)
    return f"{path}[{note.index}]" if isinstance(note.index, int) else _dotted(path, note.index)


def _dotted(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)

"""structlog set-up: JSON lines where nobody watches, readable ones on a terminal; no secrets."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

import msgspec
import structlog

from agent import journald
from agent.words import without_credentials

HIDDEN = "[secret]"
_secrets: set[str] = set()
"""Each as it is, and as JSON writes it."""
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def hide(secrets: Iterable[bytes]) -> None:
    """Never let any of these into a log line, wherever it might come from."""
    for secret in secrets:
        text = secret.decode(errors="replace")
        if len(text) >= 8:
            _secrets.update(
                (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
            )


def redact(value: Any) -> Any:
    """`value` without known secrets and without the user part of URLs, all the way down."""
    if isinstance(value, str):
        for secret in _secrets:
            value = value.replace(secret, HIDDEN)
        return without_credentials(value) if "://" in value else value
    if isinstance(value, dict):
        return {key: redact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact(one) for one in value]
    return value


def _redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = redact(value)
    return event


def _to_json(event: Any, **_: Any) -> str:
    """One line. What has nothing to hide is not gone through value by value."""
    line = _written(event)
    if "://" not in line and not any(secret in line for secret in _secrets):
        return line
    line = _written(redact(event))
    for secret in _secrets:
        line = line.replace(secret, HIDDEN)
    return line


def _written(event: Any) -> str:
    try:
        return _encode(event).decode()
    except UnicodeEncodeError:
        # The name of a file that is not UTF-8; only the slower encoder can write that.
        return json.dumps(event, default=str)


def _stamp(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """RFC 3339 in UTC, as the encoder writes a time."""
    event["timestamp"] = datetime.now(UTC)
    return event


def _for_a_person(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """What it is about first, and nothing that says nothing."""
    about = {key: event[key] for key in ("target", "deployment") if key in event}
    return {key: one for key, one in {**about, **event}.items() if one is not None and one != ""}


def set_up(stream: TextIO = sys.stderr, environ: Mapping[str, str] = MappingProxyType({})) -> None:
    """Send every log line of the process, the libraries' warnings among them, to `stream`.

    Where that leads to systemd's journal, with their fields and straight there.
    """
    handler = _to_journal() if journald.is_behind(stream, environ) else _to_stream(stream)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def _to_journal() -> logging.Handler:
    sender = journald.Sender()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _redact,
            journald.fields,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: sender,
        cache_logger_on_first_use=True,
    )
    handler = journald.Handler(sender)
    handler.setFormatter(_Redacting())
    return handler


class _Unfailing:
    """A stream on which a line is lost, and nothing else, when it cannot be written.

    Its reader may be gone, its disk full; neither must end a deployment or refuse a delivery.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return str(redact(super().format(record)))


def _to_stream(stream: TextIO) -> logging.Handler:
    unfailing: Any = _Unfailing(stream)
    shared: list[Any] = [structlog.processors.add_log_level]
    if stream.isatty():
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
        rendered: list[Any] = [
            _redact,
            _for_a_person,
            structlog.dev.ConsoleRenderer(colors=True, pad_event_to=24, sort_keys=False),
        ]
    else:
        shared.append(_stamp)
        rendered = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(_to_json),
        ]
    structlog.configure(
        processors=[*shared, *rendered],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(unfailing),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(unfailing)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendered,
            ],
        )
    )
    return handler

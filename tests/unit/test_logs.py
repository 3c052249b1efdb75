"""No secret in any log line, wherever it comes from."""

import io
import json
import logging
import re

import pytest
import structlog

from agent import logs

pytestmark = pytest.mark.usefixtures("logging_put_back")
SECRET = "a very recognisable secret"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_with_level_and_time_in_utc() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    structlog.get_logger("x").warning("delivery.queued", delivery="72d3", targets=("shop",))
    (line,) = lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "delivery.queued",
        "delivery": "72d3",
        "targets": ["shop"],
        "level": "warning",
    }


def test_secrets_are_hidden_in_every_place() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    logs.hide([SECRET.encode(), b"short"])
    log = structlog.get_logger("x")
    log.info(
        f"event {SECRET}", a=SECRET, b=[{"c": f"x{SECRET}y"}], d=("https://ada:pw@host/x",), e=3
    )
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("crashed")
    logging.getLogger("library").warning("it says %s", SECRET)
    text = stream.getvalue()
    assert SECRET not in text
    assert "ada:pw" not in text
    assert "https://host/x" in text
    assert text.count(logs.HIDDEN) >= 5


def test_libraries_lines_are_json_too() -> None:
    stream = io.StringIO()
    logs.set_up(stream)
    logging.getLogger("apscheduler").warning("hello %s", "there")
    (line,) = lines(stream)
    assert (line["event"], line["logger"]) == ("hello there", "apscheduler")


def test_a_terminal_gets_readable_lines() -> None:
    stream = Terminal()
    logs.set_up(stream)
    log = structlog.get_logger("x")
    log.info("deployment.finished", outcome="deployed", detail="", delivery=None, target="shop")
    said = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert said.split()[1:] == [
        "[info",
        "]",
        "deployment.finished",
        "target=shop",
        "outcome=deployed",
    ]
    with pytest.raises(json.JSONDecodeError):
        lines(stream)


class Full(io.StringIO):
    """A stream to a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else() -> None:
    logs.set_up(Full())
    structlog.get_logger("x").info("agent.ready")
    logging.getLogger("library").warning("hello")

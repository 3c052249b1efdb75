"""The journal's native protocol, as a journal receives it: datagrams, and memory files."""

import array
import io
import logging
import mmap
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent import journald, logs

pytestmark = pytest.mark.usefixtures("logging_put_back")
SECRET = "a secret of the tests, long enough"


class Journal:
    """Receives as systemd-journald does."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.bind(str(path))

    def entry(self) -> dict[str, str]:
        room = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
        content, passed, _, _ = self._socket.recvmsg(1 << 20, room)
        for _, _, descriptor in passed:
            content = self._read(int.from_bytes(descriptor, "little"))
        return decoded(content)

    def _read(self, file: int) -> bytes:
        with os.fdopen(file, "rb") as opened, mmap.mmap(file, 0, prot=mmap.PROT_READ) as content:
            # A memory file that could still change is refused.
            with pytest.raises(PermissionError):
                os.ftruncate(opened.fileno(), 1)
            return content[:]

    def close(self) -> None:
        self._socket.close()


def decoded(content: bytes) -> dict[str, str]:
    found = {}
    while content:
        line, _, content = content.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(content[:8], "little")
            value, content = content[8 : 8 + size], content[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        one = Journal(Path(folder) / "socket")
        monkeypatch.setattr(journald.Sender.__init__, "__defaults__",
                            (Path(folder) / "socket", "gitops-agent"))  # fmt: skip
        yield one
        one.close()


@pytest.fixture
def behind(journal: Journal) -> Iterator[Journal]:
    """Logs set up as under systemd, where standard error is the journal's stream."""
    with tempfile.TemporaryFile("w") as stream:
        info = os.fstat(stream.fileno())
        logs.set_up(stream, {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"})
        yield journal
    for handler in logging.getLogger().handlers:
        if isinstance(handler, journald.Handler):
            handler.close()


def test_each_value_is_a_field_and_the_line_is_readable(behind: Journal) -> None:
    log = structlog.get_logger("test").bind(target="shop")
    log.warning(
        "deployment.finished", deployment="d1", seconds=1.5, delivery=None, paths=("a", "b")
    )
    assert behind.entry() == {
        "MESSAGE": "deployment.finished target=shop deployment=d1 seconds=1.5 paths=a b",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "gitops-agent",
        "DEPLOY_EVENT": "deployment.finished",
        "DEPLOY_TARGET": "shop",
        "DEPLOY_ID": "d1",
        "DEPLOY_SECONDS": "1.5",
        "DEPLOY_PATHS": "a b",
    }


@pytest.mark.parametrize(
    ("level", "priority"), [("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_levels_are_as_the_journal_knows_them(behind: Journal, level: str, priority: str) -> None:
    getattr(structlog.get_logger("test"), level)("x")
    assert behind.entry()["PRIORITY"] == priority


def test_a_value_cannot_forge_another_field(behind: Journal) -> None:
    structlog.get_logger("test").info("x", why="first\nPRIORITY=0\nMESSAGE=forged", Odd_näme="y")
    entry = behind.entry()
    assert entry["PRIORITY"] == "6"
    assert entry["DEPLOY_WHY"] == "first\nPRIORITY=0\nMESSAGE=forged"
    assert entry["DEPLOY_ODD_N_ME"] == "y"


def test_a_line_too_large_for_a_datagram_comes_whole(behind: Journal) -> None:
    text = "x" * (1 << 20)
    structlog.get_logger("test").info("large", text=text)
    assert behind.entry()["DEPLOY_TEXT"] == text


def test_a_traceback_and_a_library_s_warning_come_without_secrets(behind: Journal) -> None:
    logs.hide([SECRET.encode()])
    try:
        raise ValueError(SECRET)
    except ValueError:
        structlog.get_logger("test").exception("crashed")
    entry = behind.entry()
    assert "Traceback" in entry["MESSAGE"]
    assert "ValueError" in entry["DEPLOY_TRACEBACK"]
    assert SECRET not in str(entry)
    logging.getLogger("library").warning("it says %s", SECRET)
    entry = behind.entry()
    assert (entry["MESSAGE"], entry["DEPLOY_LOGGER"]) == (f"it says {logs.HIDDEN}", "library")


def test_a_journal_that_is_gone_loses_no_line(
    behind: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    behind.close()
    structlog.get_logger("test").info("still.told", target="shop")
    assert "still.told target=shop" in capsys.readouterr().err


def test_a_terminal_is_no_journal(journal: Journal) -> None:
    assert not journald.is_behind(io.StringIO(), {})
    with tempfile.TemporaryFile("w") as stream:
        assert not journald.is_behind(stream, {"JOURNAL_STREAM": "1:2"})

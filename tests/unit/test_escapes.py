"""What a hook prints can colour a terminal and do nothing else to it."""

import pytest

from agent.escapes import Harmless

BELL, CSI8, TURN = "\x07", "\x9b", "\u202e"


@pytest.mark.parametrize(
    ("pieces", "harmless"),
    [
        (["plain ünïcode 漢\n"], "plain ünïcode 漢\n"),
        (["\x1b[1;31mred\x1b[0m"], "\x1b[1;31mred\x1b[0m"),
        (["\x1b[38:5:208mo\x1b[m"], "\x1b[38:5:208mo\x1b[m"),
        (["\x1b[2J\x1b[H\x1b[?1049hgone"], "gone"),
        ([f"\x1b]0;title{BELL}a\x1b]52;c;cm0gLXJm\x1b\\b\x1bP+q\x1b\\c"], "abc"),
        (["\x1bca\x1b(0b\x1b"], "ab"),
        ([f"{CSI8}31mx{BELL}\x08{TURN}y\x00\x7f"], "31mxy"),
        (["10%\r20%\r\ndone"], "10%\n20%\ndone"),
        (["a\x1b[3", "1mb\x1b]0;ti", f"tle{BELL}c\x1b", "[0md\r", "\ne"], "a\x1b[31mbc\x1b[0md\ne"),
    ],
)
def test_only_colours_come_through(pieces: list[str], harmless: str) -> None:
    one = Harmless()
    assert "".join(map(one.feed, pieces)) == harmless


def test_a_sequence_that_never_ends_holds_little_back() -> None:
    one = Harmless()
    shown = "".join(one.feed("\x1b]0;" + "x" * 1000) for _ in range(50)) + one.feed("\nend")
    assert shown.endswith("\nend")
    assert "\x1b" not in shown

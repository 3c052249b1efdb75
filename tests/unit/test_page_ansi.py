"""A hook's output as HTML: colours kept, nothing hostile let through."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.page.ansi import Painter, stylesheet


def paint(*pieces: str) -> str:
    painter = Painter()
    return "".join(map(painter.paint, pieces))


@pytest.mark.parametrize(
    ("text", "painted"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m plain", '<span class="fg1">red</span> plain'),
        ("\x1b[1;4;92mloud\x1b[m", '<span class="fg10 bold underline">loud</span>'),
        ("\x1b[31m\x1b[39;41mx", '<span class="bg1">x</span>'),
        ("\x1b[1m\x1b[22;3mx\x1b[23my", '<span class="italic">x</span>y'),
        ("\x1b[7;103mx\x1b[27;49my", '<span class="bg11 inverse">x</span>y'),
        ("\x1b[38;5;208mx", '<span class="fg208">x</span>'),
        ("\x1b[48:5:17mx", '<span class="bg17">x</span>'),
        ("\x1b[38;2;255;0;0;1mx", '<span class="fg196 bold">x</span>'),
        ("\x1b[38:2::0:0:255mx", '<span class="fg21">x</span>'),
        ("\x1b[4:3mwavy\x1b[4:0mflat", '<span class="underline">wavy</span>flat'),
        ("\x1b[38;5;999mx\x1b[38;7mx\x1b[99999999mx\x1b[55mx", "xxxx"),
        ("\x1b[2K\x1b[1;1Hhere\x1b[?25l", "here"),
        ("\x1b]0;a title\x07\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x1b=y", "xy"),
        ("10 %\r20 %\r\ndone\r\n", "10 %\n20 %\ndone\n"),
        ("a\x07\x08\x9b\u202eb", "ab"),
    ],
)
def test_what_becomes_of_it(text: str, painted: str) -> None:
    assert paint(text) == painted


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</span></pre><img src=x onerror=alert(1)>",
        '\x1b[31;"onmouseover="alert(1)mx',
        "\x1b]0;<script>\x1b[31m<b>",
        "\x1b[38;5;<i>m<u>",
        "&lt;script&gt;",
    ],
)
def test_no_markup_gets_through(text: str) -> None:
    painted = paint(text)
    inner = re.sub(r'<span class="[a-z0-9 ]+">|</span>', "", painted)
    assert "<" not in inner
    assert '"' not in inner
    assert painted.count("<span") == painted.count("</span")


def test_a_style_and_a_sequence_go_on_in_the_next_piece() -> None:
    assert paint("a\x1b", "[3", "1mred", "der\x1b[0", "m.") == (
        'a<span class="fg1">red</span><span class="fg1">der</span>.'
    )
    assert paint("one\r", "\ntwo") == "one\ntwo"
    painter = Painter()
    painter.skip("\x1b[32mgreen <b> \x1b[1")
    assert painter.paint("mon") == '<span class="fg2 bold">on</span>'


def test_a_string_that_never_ends_swallows_little() -> None:
    assert "the rest" in paint("\x1b]0;" + "x" * 5000 + "the rest", "\n")


_PIECES = st.lists(st.text(alphabet=st.sampled_from("\x1b[]0;:13m<>&\"'\r\n\\\x07aé")), max_size=5)


@given(_PIECES)
def test_cut_anywhere_it_is_the_same_text(pieces: list[str]) -> None:
    def bare(painted: str) -> str:
        return html.unescape(re.sub(r"<[^>]*>", "", painted))

    # What is cut off at the very end waits for more; a letter ends every sequence.
    assert bare(paint(*pieces, "\x07a")) == bare(paint("".join(pieces) + "\x07a"))


def test_a_megabyte_of_unfinished_sequences_is_done_at_once() -> None:
    for unfinished in ("\x1b]", "\x1b[0", "\x1b", "\x1b[38;", "\x1b]\x1b"):
        painted = paint(unfinished * 100_000)
        assert "<" not in painted


def test_the_stylesheet_has_every_colour() -> None:
    rules = stylesheet()
    assert all(f".fg{n}{{" in rules and f".bg{n}{{" in rules for n in range(16, 256))
    assert ".fg196{color:#ff0000}" in rules

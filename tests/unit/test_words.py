"""How times are said, and what becomes of a hostile text."""

import pytest

from agent import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0.0 s"), (0.44, "0.4 s"), (45, "45 s"), (119, "119 s"), (120, "2 min"),
     (7199, "119 min"), (7200, "2 h"), (86400 * 2 - 1, "47 h"), (86400 * 5, "5 d")],
)  # fmt: skip
def test_a_span_is_said_in_the_unit_one_would_use(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_never_and_ago() -> None:
    assert words.ago(None, 5.0) == "never"
    assert words.ago(0.0, 60.0) == "60 s ago"


def test_which_branches_there_are_instead() -> None:
    said = "https://host/shop.git has no branch main"
    assert words.no_branch("https://ada:secret@host/shop.git", "main") == said
    refs = [f"refs/heads/b{n}" for n in range(6)]
    assert words.no_branch("https://host/shop.git", "main", ()) == f"{said}, and no other"
    assert words.no_branch("https://host/shop.git", "main", refs[:1]) == f"{said}; it has: b0"
    all_of_them = f"{said}; it has: b0, b1, b2, b3, b4, …"
    assert words.no_branch("https://host/shop.git", "main", refs) == all_of_them


def test_what_could_steer_a_terminal_is_shown_as_a_blot() -> None:
    assert words.printable("a\x1b[31mb\x07\u202ec") == "a�[31mb��c"
    assert words.printable("Grüße, 世界") == "Grüße, 世界"

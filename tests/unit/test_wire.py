"""Protocol 2: what is asked, and what of an answer is believed."""

import random

import pytest

from agent.wire import Odd, fetch, ls_refs, pack, tips

A, B = "a" * 40, "b" * 40
MAIN, NEXT = "refs/heads/main", "refs/heads/next"


def lines(*texts: str) -> bytes:
    return b"".join(b"%04x%s" % (len(text) + 4, text.encode()) for text in texts)


def test_the_question_names_each_ref_once() -> None:
    assert ls_refs([NEXT, MAIN]) == (
        lines("command=ls-refs\n")
        + b"0001"
        + lines(f"ref-prefix {MAIN}\n", f"ref-prefix {NEXT}\n")
        + b"0000"
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (lines(f"{A} {MAIN}\n") + b"0000", {MAIN: A}),
        (lines(f"{A} {MAIN}") + b"0000", {MAIN: A}),
        (b"0000", {MAIN: None}),
        (lines(f"{B} {MAIN}-2\n", f"{A} {MAIN}\n", f"{B} {MAIN}/x\n") + b"0000", {MAIN: A}),
        (lines(f"{B} {MAIN}-2\n") + b"0000", {MAIN: None}),
        (lines(f"{A} {MAIN} symref-target:refs/heads/x peeled:{B}\n") + b"0000", {MAIN: A}),
        (lines(f"{'c' * 64} {MAIN}\n") + b"0000", {MAIN: "c" * 64}),
    ],
)
def test_what_an_answer_tells(body: bytes, told: dict[str, str | None]) -> None:
    assert tips(body, [MAIN]) == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"000",
        b"<html>not git</html>",
        lines(f"{A} {MAIN}\n"),
        lines(f"{A} {MAIN}\n")[:-1] + b"0000",
        lines(f"{A} {MAIN}\n") + b"0000" + lines(f"{B} {MAIN}\n"),
        lines("ERR upload-pack: not our ref\n") + b"0000",
        lines(f"unborn {MAIN}\n") + b"0000",
        lines(f"{A[:39]} {MAIN}\n") + b"0000",
        lines(f"{A.upper()} {MAIN}\n") + b"0000",
        b"0001" + b"0000",
        b"0003" + b"0000",
        b"0004" + b"0000",
        b"-004" + b"0000",
        b"+00f" + A.encode() + b"0000",
        b"0_0f" + A.encode() + b"0000",
        b"fff0" + b"x" * 100,
        b"0009\xff\xfe\xfd\xfc\xfb0000",
    ],
)
def test_an_odd_answer_tells_nothing(body: bytes) -> None:
    with pytest.raises(Odd):
        tips(body, [MAIN])


def test_no_answer_does_worse_than_being_odd() -> None:
    chance = random.Random(1)
    whole = lines(f"{A} {MAIN}\n", f"{B} {NEXT}\n") + b"0000"
    for _ in range(20_000):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            told = tips(bytes(body[: chance.randrange(len(body) + 1)]), [MAIN])
        except Odd:
            continue
        assert told.keys() == {MAIN}


def test_a_pack_is_asked_for_in_one_question() -> None:
    assert fetch([B], [A]) == (
        lines("command=fetch\n")
        + b"0001"
        + lines("thin-pack\n", "no-progress\n", "ofs-delta\n")
        + lines(f"want {B}\n", f"have {A}\n", "done\n")
        + b"0000"
    )


def test_the_pack_is_what_comes_in_the_first_band() -> None:
    answer = lines("packfile\n", "\1PACK", "\2counting", "\1more") + b"0000"
    assert pack(answer) == b"PACKmore"


@pytest.mark.parametrize(
    "answer",
    [
        b"0000",
        lines("\1PACK") + b"0000",
        lines("packfile\n", "\1PACK"),
        lines("packfile\n", "\1PACK", "\3out of memory") + b"0000",
        lines("packfile\n", "\1PACK", "\4") + b"0000",
        lines("shallow-info\n", f"shallow {A}\n") + b"0001" + lines("packfile\n") + b"0000",
        lines("ERR upload-pack: not our ref\n") + b"0000",
        lines("acknowledgments\n", "NAK\n") + b"0000",
    ],
)
def test_an_odd_pack_is_none(answer: bytes) -> None:
    with pytest.raises(Odd):
        pack(answer)

"""The wire between receiver and core, over a real socket in one loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from agent import feed
from agent.feed import Answer, Feed, FeedLost, Follower
from agent.forges.signature import Refusal
from agent.inbox import Inbox, Letters
from agent.model import Delivery, Letter, Push
from agent.server import bind
from agent.tally import Tally

A = "a" * 40
PUSH = Push("refs/heads/main", A, frozenset())


class House:
    """A receiver's side and a core's."""

    def __init__(self, root: Path) -> None:
        self.inbox = Inbox(root)
        self.letters = Letters(self.inbox)
        self.tally = Tally()
        self.feed = Feed(self.inbox, self.letters, self.tally)
        self.path = root / "feed.sock"
        self.well = True
        self.follower = Follower(self.path, lambda: self.well)

    def put(self, number: str) -> Letter:
        delivery = Delivery("github", number, "push", 0)
        (letter,) = self.inbox.receive([(delivery, PUSH, ("shop",))], 1.0).result()
        assert letter
        self.letters.ring(letter)
        return letter


@pytest.fixture
def root() -> Iterator[Path]:
    # A socket's path must be short, and pytest's folders are not.
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def house(root: Path) -> Iterator[House]:
    one = House(root)
    yield one
    one.inbox.close()


def talking(house: House, test: Callable[[], Awaitable[None]]) -> None:
    async def work() -> None:
        server = await house.feed.open(bind(f"unix:{house.path}"))
        try:
            await test()
        finally:
            house.follower.close()
            server.close()

    asyncio.run(work())


def test_letters_come_as_they_are_put_and_in_order(house: House) -> None:
    async def test() -> None:
        first = house.put("1")
        assert await house.follower.inbox() == house.inbox.id
        assert await house.follower.after(0) == [first]
        waiting = asyncio.create_task(house.follower.after(1))
        await asyncio.sleep(0)
        second = house.put("2")
        assert await waiting == [second]
        assert house.feed.read == 1

    talking(house, test)


def test_with_each_answer_comes_what_became_of_deliveries(house: House) -> None:
    async def test() -> None:
        house.tally.answered("github", 202, {"status": "queued"})
        house.tally.answered("github", 200, {"status": "ignored", "reason": "not a branch"})
        house.tally.refuse("github", Refusal.MISMATCH, {b"user-agent": b"x"}, "::1", 5.0)
        await house.follower.inbox()
        assert house.follower.tally == house.tally
        assert house.follower.tally.answers["github", "refused"] == 0

    talking(house, test)


def test_the_receiver_knows_how_the_core_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(feed, "_SILENCE", 0.0)
        assert not house.feed.core_is_well()
        assert "does not answer" in str(house.follower.trouble())
        monkeypatch.setattr(feed, "_SILENCE", 1000.0)
        told_at = house.feed._well_at
        house.well = False
        await house.follower.inbox()
        assert house.feed._well_at == told_at
        house.well = True
        await house.follower.inbox()
        assert house.feed._well_at > told_at
        assert house.follower.trouble() is None

    talking(house, test)


def test_without_a_receiver_it_says_so(house: House) -> None:
    async def test() -> None:
        with pytest.raises(FeedLost, match="no receiver on"):
            await house.follower.inbox()
        with pytest.raises(FeedLost, match="not connected"):
            await house.follower.after(0)

    asyncio.run(test())


def test_an_inbox_that_fails_ends_the_talk(house: House) -> None:
    async def test() -> None:
        house.put("1")
        house.put("2")
        await house.follower.inbox()
        # As for a core that was away for longer than the receiver remembers.
        house.letters._recent.clear()
        house.inbox.close()
        with pytest.raises(FeedLost):
            await house.follower.after(0)

    talking(house, test)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x08nonsense",
        msgspec.msgpack.encode({"inbox": "x", "letters": [], "tally": 1}),
        msgspec.msgpack.encode(Answer("x", [Letter(1, "a b", A, ("shop",), 1.0)], Tally())),
        msgspec.msgpack.encode(Answer("x", [Letter(1, "1", "--upload", ("shop",), 1.0)], Tally())),
        msgspec.msgpack.encode(Answer("x", [Letter(0, "1", A, ("shop",), 1.0)], Tally())),
        msgspec.msgpack.encode(
            Answer("x", [Letter(n, "1", A, ("shop",), 1.0) for n in (2, 1)], Tally())
        ),
        b"",
    ],
)
def test_a_receiver_that_was_taken_over_can_say_nothing_that_makes_no_sense(
    root: Path, message: bytes
) -> None:
    """The first answer is sound, the second is not."""
    sound = msgspec.msgpack.encode(Answer("x", [], Tally()))

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in (sound, message):
            await reader.readexactly(int.from_bytes(await reader.readexactly(4)))
            framed = one if one[:1] in (b"\xff", b"\0") else len(one).to_bytes(4) + one
            writer.write(framed)
        writer.close()

    async def test() -> None:
        server = await asyncio.start_unix_server(lie, root / "feed.sock")
        follower = Follower(root / "feed.sock", lambda: True)
        await follower.inbox()
        with pytest.raises(FeedLost):
            await follower.after(0)
        follower.close()
        server.close()

    asyncio.run(test())

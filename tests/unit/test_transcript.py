"""A deployment's output, followed: nothing twice, nothing missed, no character torn."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.attempt import Synced
from agent.journal import Journal
from agent.model import Condition, Deployment, Outcome, Reason, SyncRequest
from agent.plan import Ending
from agent.transcript import LogPiece, Place, follow, follow_target, log_file, printed
from agent.worker import Mailbox

ONE = Deployment("d1", "shop", "b" * 40, None, Reason.PUSH, "why", 1, 1.0)


class Scene:
    """A deployment that the test drives, step by step."""

    def __init__(self, root: Path) -> None:
        self.logs = root / "logs"
        self.journal = Journal(root / "state")
        self.journal.begin(ONE, SyncRequest("shop", Reason.POLL), clears_holds=True)

    def begin(self, n: int, name: str) -> None:
        self.journal.step_begins("d1", n, "activate", name, float(n))

    def print(self, n: int, text: bytes) -> None:
        steps = self.journal.deployment("d1").result().steps  # type: ignore[union-attr]
        path = log_file(self.logs, "d1", steps[n - 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(text)

    def end(self, n: int) -> None:
        self.journal.step_ends("d1", n, "ok", n + 0.5).result()

    def finish(self) -> None:
        self.journal.conclude(ONE, Ending(Outcome.DEPLOYED, Condition.SETTLED, "b" * 40, ""), 9.0)
        self.journal.end("d1", 9.0)

    def follow(self, after: Place | None = None) -> AsyncIterator[LogPiece]:
        return follow(self.journal, self.logs, "d1", to_its_end=True, after=after)

    def follow_target(self, box: Mailbox) -> AsyncIterator[LogPiece]:
        return follow_target(self.journal, self.logs, "shop", box)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    one = Scene(tmp_path)
    yield one
    one.journal.close()


def said(piece: LogPiece) -> str:
    if piece.waits:
        return f"waiting for {piece.waits}"
    if piece.left:
        return f"{piece.left.target}: {piece.left.why}"
    if piece.step:
        return f"step {piece.step.n}"
    return piece.text if piece.text is not None else "the end"


async def everything(pieces: AsyncIterator[LogPiece]) -> list[str]:
    return [said(piece) async for piece in pieces]


def test_it_is_told_as_it_grows_and_ends(scene: Scene) -> None:
    async def told() -> list[str]:
        found = []
        scene.begin(1, "first")
        async with aclosing(scene.follow()) as pieces:  # type: ignore[type-var]
            found.append(said(await anext(pieces)))
            scene.print(1, b"half a character: \xc3")
            found.append(said(await anext(pieces)))
            scene.print(1, b"\xa9 and \xff")
            found.append(said(await anext(pieces)))
            scene.end(1)
            scene.begin(2, "second")
            scene.finish()
            found += await everything(pieces)
        return found

    assert asyncio.run(told()) == [
        "step 1", "half a character: ", "é and �", "step 1", "step 2", "the end",
    ]  # fmt: skip


def test_a_follower_that_comes_back_misses_nothing_and_hears_nothing_twice(scene: Scene) -> None:
    scene.begin(1, "first")
    scene.print(1, "one\nzwölf\n".encode())
    scene.end(1)
    scene.begin(2, "second")
    scene.print(2, b"two\n")
    scene.end(2)
    scene.finish()

    async def run() -> None:
        pieces = [piece async for piece in scene.follow()]
        whole = [said(piece) for piece in pieces]
        assert whole == ["step 1", "one\nzwölf\n", "step 1", "step 2", "two\n", "step 2", "the end"]
        for n, piece in enumerate(pieces[:-1]):
            rest = await everything(scene.follow(piece.at))
            # Of a step that had ended already, only its end is told again.
            assert rest in (whole[n + 1 :], [said(piece), *whole[n + 1 :]])
        middle = await everything(scene.follow(Place(1, 4)))
        assert middle == ["zwölf\n", *whole[2:]]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("last", "rest"),
    [
        (Synced("deployed", "", "d1"), ["step 1", "step 1", "the end"]),
        (Synced("held", "it is held"), ["shop: it is held"]),
        (None, ["step 1", "step 1", "the end"]),
    ],
)
def test_what_follows_a_deployment_or_a_look_is_waited_for(
    scene: Scene, last: Synced | None, rest: list[str]
) -> None:
    """Whether the newest deployment came of the look shows when nothing goes on any more."""
    scene.begin(1, "first")
    scene.end(1)
    scene.finish()

    async def told() -> list[str]:
        box = Mailbox(running=asyncio.current_task())
        async with aclosing(scene.follow_target(box)) as pieces:  # type: ignore[type-var]
            found = [said(await anext(pieces))]
            box.running, box.last = None, last
            return found + await everything(pieces)

    assert asyncio.run(told()) == ["waiting for shop", *rest]


def test_a_deployment_that_runs_is_told_and_then_what_comes_after_it(scene: Scene) -> None:
    scene.begin(1, "first")

    async def told() -> list[str]:
        box = Mailbox(running=asyncio.current_task())
        async with aclosing(scene.follow_target(box)) as pieces:  # type: ignore[type-var]
            found = [said(await anext(pieces))]
            scene.end(1)
            scene.finish()
            found += [said(await anext(pieces)) for _ in range(3)]
            box.running, box.last = None, Synced("up-to-date", "it is live")
            return found + await everything(pieces)

    assert asyncio.run(told()) == [
        "step 1", "step 1", "the end", "waiting for shop", "shop: it is live",
    ]  # fmt: skip


def test_half_a_character_at_the_very_end_is_told_too(scene: Scene) -> None:
    scene.begin(1, "first")
    scene.print(1, b"torn \xe2\x82")
    scene.end(1)
    scene.finish()
    assert asyncio.run(everything(scene.follow())) == ["step 1", "torn ", "�", "step 1", "the end"]


def test_a_step_that_printed_nothing_has_no_file(scene: Scene) -> None:
    scene.begin(1, "quiet")
    step = scene.journal.deployment("d1").result().steps[0]  # type: ignore[union-attr]
    assert printed(scene.logs, "d1", step) == b""
    scene.print(1, b"now")
    assert printed(scene.logs, "d1", step) == b"now"

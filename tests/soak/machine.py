"""Inbox, journal, worker and plan against a small pure model, with crashes among its moves.

`python -m tests.soak.machine 100000` runs so many steps and prints one line.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agent import plan
from agent.attempt import Synced
from agent.inbox import Inbox
from agent.journal import Journal
from agent.model import (
    Condition,
    Delivery,
    Deployment,
    Failure,
    Letter,
    Pause,
    Push,
    Reason,
    SyncRequest,
    Target,
)
from agent.worker import Worker

TARGET = Target("shop", "/r", "main", Path("/srv/shop"), None, 60.0)
LOOKS = (Reason.PUSH, Reason.POLL, Reason.START, Reason.MANUAL)
ENDS = ("good", "bad", "bad and back bad", "not now", "crash before", "crash in", "crash in back")
NO_WAY_BACK = ("bad and back bad", "not now", "crash in back")


class Died(BaseException):
    """kill -9, as far as the journal can tell."""


class World:
    """Stands in for git and hooks: a branch, a tree, and revisions that end as they are drawn."""

    def __init__(self) -> None:
        self.tip: str | None = None
        self.tree: str | None = None
        self.end = "good"
        self.begun: list[str] = []
        # The model: what is live, and how often its next revision was tried.
        self.live: str | None = None
        self.attempted: tuple[str | None, int] = (None, 0)
        self.moved_by_hand = False
        self.broke: set[str | None] = set()
        """What was tried, or gone back from, when the way back failed too."""


class Syncs:
    """A sync in the reconciler's order of journal calls, with the world for git and hooks."""

    def __init__(self, journal: Journal, world: World, steps: "Steps") -> None:
        self._journal, self._world, self._steps = journal, world, steps

    async def sync(self, request: SyncRequest, superseded: Callable[[], bool]) -> Synced:
        journal, world = self._journal, self._world
        state = journal.state("shop")
        if request.goal:
            task = plan.roll_back(state, world.tree, request.goal)
        else:
            task = plan.decide(TARGET, state, world.tree, world.tip, request, 0.0)
        if isinstance(task, plan.Nothing):
            return Synced(task.result, task.why)
        reason = request.reason if isinstance(task, plan.Deploy) else Reason.ROLLBACK
        previous = world.tip if isinstance(task, plan.Restore) else state.live
        one = Deployment(
            f"d{len(world.begun)}", "shop", task.revision, previous, reason, task.why,
            task.attempt, float(len(world.begun)),
        )  # fmt: skip
        if state.condition is Condition.BROKEN and not request.goal and not request.force:
            assert task.revision not in world.broke, "what a person has to do was begun"
        if world.end == "crash before":
            raise Died
        revision, attempts = world.attempted
        if isinstance(task, plan.Deploy):
            attempts = attempts if revision == one.revision else 0
            revision = one.revision
        assert one.attempt == attempts + 1, "an attempt was counted twice or not at all"
        world.attempted = (revision, attempts + 1)
        journal.begin(one, request, clears_holds=isinstance(task, plan.Deploy))
        world.begun.append(one.revision)
        world.moved_by_hand = False
        return self._bring(one, task)

    async def take_up(self, name: str) -> None:
        """Nothing is ever found here."""

    async def prune(self, name: str) -> None:
        """There are no trees here."""

    def _bring(self, one: Deployment, task: plan.Task) -> Synced:
        journal, world, end = self._journal, self._world, self._world.end
        world.tree = one.revision
        if end == "crash in":
            raise Died
        restoring = isinstance(task, plan.Restore)
        if end == "good" or (restoring and end not in NO_WAY_BACK):
            ending = plan.ending_well(task, one)
            world.live = one.revision
            if not restoring:
                world.attempted = (None, 0)
        else:
            ending = self._fail(one, task)
        journal.conclude(one, ending, 1.0)
        journal.end(one.id, 1.0)
        return Synced(ending.outcome.value, "", one.id)

    def _fail(self, one: Deployment, task: plan.Task) -> plan.Ending:
        journal, world, end = self._journal, self._world, self._world.end
        failure = Failure("hook", end, temporary=end == "not now")
        if isinstance(task, plan.Deploy):
            mark = plan.hold_or_retry(failure, one.revision, one.attempt, one.id, 0.0, 0.0)
            journal.mark("shop", mark, 0.0)
        if end == "crash in back":
            raise Died
        if isinstance(task, plan.Restore):
            return plan.ending_of_restore(failure, one.revision)
        back = failure if end == "bad and back bad" and one.previous else None
        if one.previous and not back:
            world.tree = one.previous
        ending = plan.ending_badly(failure, back, True, one.previous)
        for stuck in plan.holds_of_rollback(task, ending, one):
            journal.mark("shop", stuck, 0.0)
        if ending.condition is Condition.BROKEN:
            world.broke |= set(task.leaves if isinstance(task, plan.RollBack) else [one.revision])
        return ending


class Steps:
    """Counts, for the line of figures."""

    taken = 0
    crashes = 0


class Machine(RuleBasedStateMachine):
    """Pushes, syncs and crashes; the model is what was acknowledged and what may be live."""

    counted = Steps()

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir="/tmp")
        self._runner = asyncio.Runner()
        self.world = World()
        self.acknowledged: set[str] = set()
        self.pushed = 0
        self._start()

    def _start(self) -> None:
        self.inbox = Inbox(Path(self._folder.name))
        self.journal = Journal(Path(self._folder.name))
        self.journal.interrupt("shop", 0.0)
        self.worker = Worker(Syncs(self.journal, self.world, self.counted), self.journal)

    def _crash(self) -> None:
        self.counted.crashes += 1
        self.inbox.close()
        self.journal.close()
        self._start()

    def teardown(self) -> None:
        self.inbox.close()
        self.journal.close()
        self._runner.close()
        self._folder.cleanup()

    # ---- moves --------------------------------------------------------------------------------

    @rule(new=st.booleans())
    def push(self, new: bool) -> None:
        """A push is made and its delivery acknowledged."""
        if new or self.world.tip is None:
            self.pushed += 1
            self.world.tip = f"{self.pushed:040x}"
        number = f"n{len(self.acknowledged)}"
        event = Push("refs/heads/main", self.world.tip, frozenset({"/r"}))
        delivery = Delivery("github", number, "push", 0)
        assert self.inbox.receive([(delivery, event, ("shop",))], 0.0).result() != [None]
        self.acknowledged.add(number)

    @rule()
    def deliver_again(self) -> None:
        event = Push("refs/heads/main", self.world.tip, frozenset({"/r"}))
        for number in sorted(self.acknowledged)[-2:]:
            delivery = Delivery("github", number, "push", 0)
            assert self.inbox.receive([(delivery, event, ("shop",))], 0.0).result() == [None]

    @rule(end=st.sampled_from(ENDS), reason=st.sampled_from(LOOKS), force=st.booleans())
    def sync(self, end: str, reason: Reason, force: bool) -> None:
        """Whatever is open is wished for, as at a start, and what it leads to ends as drawn."""
        self.world.end = end
        force = force and reason is Reason.MANUAL
        before = self.journal.state("shop")
        begun = len(self.world.begun)
        self._read()
        waiting = self.journal.open_requests().result()

        async def work() -> Any:
            for request in waiting:
                self.worker.wish(request)
            self.worker.wish(SyncRequest("shop", reason, force=force))
            task = self.worker.mailbox("shop").running
            assert task
            return await task

        try:
            self._runner.run(work())
        except Died:
            self._crash()
        else:
            open_still = self.journal.open_requests().result()
            assert before.pause or open_still == []
            assert all(request.reason is Reason.PUSH for request in open_still)
        held = self.world.tip is not None and before.hold_on(self.world.tip)
        if (held or before.pause) and not force:
            new = self.world.begun[begun:]
            goals = {request.goal for request in waiting}
            assert set(new) <= {before.live, *goals}, "a held or paused revision was tried"
        retry = before.retry
        left_alone = (
            held
            or before.pause
            or any(request.goal for request in waiting)
            or (retry and retry.revision == self.world.tip and reason is Reason.POLL)
        )
        if end == "good" and self.world.tip and not left_alone:
            assert self.journal.state("shop").live == self.world.tip, "the branch's end is not live"

    @rule()
    def deploy(self) -> None:
        """A push that goes well, so that there is something to go back to."""
        self.push(new=True)
        self.sync(end="good", reason=Reason.PUSH, force=False)

    @rule(end=st.sampled_from(ENDS))
    def go_back(self, end: str) -> None:
        """A person's rollback, at once."""
        self.roll_back()
        self.sync(end=end, reason=Reason.POLL, force=False)

    @rule()
    def read(self) -> None:
        """The core takes what has come, and lives or dies after it."""
        self._read()

    def _read(self) -> None:
        letters = self._unread()
        if letters:
            self.journal.take(self.inbox.id, letters)[1].result()

    def _unread(self) -> list[Letter]:
        return self.inbox.after(self.journal.read_up_to(self.inbox.id).result()).result()

    @rule()
    def crash(self) -> None:
        self._crash()

    @rule()
    def roll_back(self) -> None:
        """A person wants the last good revision back; done at the next sync, or after a crash."""
        goal = self.journal.last_good("shop")
        if goal:
            wish = SyncRequest("shop", Reason.ROLLBACK, actor="ada", goal=goal)
            self.journal.request(wish, 0.0).result()

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        self.journal.set_pause("shop", Pause(0.0, "ada") if paused else None).result()

    @rule()
    def by_hand(self) -> None:
        """Somebody moves the tree; only where nothing is half done."""
        if self.journal.state("shop").condition is Condition.SETTLED:
            self.world.tree = "f" * 40
            self.world.moved_by_hand = True

    # ---- what always holds --------------------------------------------------------------------

    @invariant()
    def counts(self) -> None:
        self.counted.taken += 1

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        """Each has one letter, and the newest that was read, a request."""
        letters = self.inbox.after(0).result()
        assert sorted(one.delivery for one in letters) == sorted(self.acknowledged)
        unread = {one.delivery for one in self._unread()}
        read = [one.delivery for one in letters if one.delivery not in unread]
        assert read == [] or self._requests_for(read[-1]) == 1, "lost, or taken twice"

    def _requests_for(self, delivery: str) -> int:
        def count(db: Any) -> int:
            counted = "SELECT count(*) FROM requests WHERE delivery = ?"
            return int(db.execute(counted, (delivery,)).fetchone()[0])

        return self.journal.submit(count).result()

    @invariant()
    def live_is_what_the_model_says(self) -> None:
        assert self.journal.state("shop").live == self.world.live

    @invariant()
    def a_settled_tree_is_the_live_one(self) -> None:
        settled = self.journal.state("shop").condition is Condition.SETTLED
        if settled and self.world.live and not self.world.moved_by_hand:
            assert self.world.tree == self.world.live


def run(steps: int) -> Steps:
    """So many steps at least."""
    Machine.counted = Steps()
    once = settings(
        max_examples=max(1, steps // 50), stateful_step_count=50, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    while Machine.counted.taken < steps:
        run_state_machine_as_test(Machine, settings=once)
    return Machine.counted


def main() -> None:
    counted = run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    sys.stdout.write(
        f"{counted.taken} steps, {counted.crashes} crashes: the journal kept every promise\n"
    )


if __name__ == "__main__":
    main()

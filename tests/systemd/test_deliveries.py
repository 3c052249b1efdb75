"""None is refused and none lost, whatever happens to the services meanwhile."""

import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.systemd.machine import CHECKOUT, PROGRAM, Machine
from tests.systemd.shop import BOTH, ON_THE_MACHINE, REPO, SECRET, live, push

pytestmark = ON_THE_MACHINE


@contextmanager
def streaming(machine: Machine, revision: str) -> Iterator[list[tuple[str, str]]]:
    """Deliveries without end in the background; how each was answered, and its id, at the end."""
    secret = machine.says(f"cat {SECRET}")
    sender = subprocess.Popen(
        [*machine.enter("-n"), sys.executable, "-m", "tests.systemd.stream", "9000", REPO, revision,
         secret],
        cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answers: list[tuple[str, str]] = []
    try:
        yield answers
    finally:
        told, _ = sender.communicate(timeout=90)
        for line in told.splitlines():
            how, number = line.split()
            answers.append((how, number))


def taken(machine: Machine, folder: Path) -> set[str]:
    """The deliveries that woke their target, or will at the next start. Both have to be stopped.

    One sync request stands for all letters that were read with it; its delivery is the newest.
    """
    for name in ("gitops-agent/journal.db", "gitops-agent-receiver/inbox.db"):
        shutil.copy(machine.root / "var/lib" / name, folder)
    with closing(sqlite3.connect(folder / "journal.db")) as journal:
        requested = {row[0] for row in journal.execute("SELECT delivery FROM requests")}
        ((read,),) = journal.execute("SELECT n FROM cursors")
    with closing(sqlite3.connect(folder / "inbox.db")) as inbox:
        letters = list(inbox.execute("SELECT n, id FROM letters"))
    asked = max(n for n, delivery in letters if delivery in requested)
    return {delivery for n, delivery in letters if n <= asked or n > read}


UPGRADE = f"{PROGRAM}/bin/pip install --quiet --no-deps --force-reinstall gitops-agent"


@pytest.mark.parametrize(
    ("happens", "may_be_cut_off"),
    [
        ([f"systemctl reload {BOTH}", f"systemctl restart {BOTH}", f"systemctl restart {BOTH}"], False),
        ([UPGRADE, "gitops-agent install", f"systemctl restart {BOTH}"], False),
        (["systemctl kill -s KILL gitops-agent-receiver", "systemctl kill -s KILL gitops-agent",
          f"systemctl kill -s KILL {BOTH}"], True),
    ],
    ids=["reload and restart", "upgrade", "kill"],
)  # fmt: skip
def test_under_a_stream_of_deliveries_none_is_refused_and_none_lost(
    installed: Machine, happens: list[str], may_be_cut_off: bool, tmp_path: Path
) -> None:
    revision = push(installed)
    with streaming(installed, revision) as answers:
        for command in happens:
            installed.run(command)
            installed.until(f"systemctl is-active --quiet {BOTH}")
            installed.until("curl -sf http://127.0.0.1:9000/healthz")
    counted = Counter(how for how, _ in answers)
    assert counted["202"] >= 10
    assert set(counted) <= ({"202", "cut-off"} if may_be_cut_off else {"202"}), counted
    live(installed, revision)
    installed.run(f"systemctl stop {BOTH}")
    acknowledged = {number for how, number in answers if how == "202"}
    assert acknowledged - taken(installed, tmp_path) == set()
    installed.run(f"systemctl start {BOTH}")

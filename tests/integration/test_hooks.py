"""Real hooks: real processes, real signals, real output."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import hooks, processes
from agent.cancel import Cancel
from agent.hooks import Command, Result
from agent.model import Hook, Outcome, Reason, Stage, Target
from agent.output import Output
from agent.runs import Runs, end_leftovers

A, B = "a" * 40, "b" * 40


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    one = Cancel()
    yield one
    one.close()


@pytest.fixture
def runs() -> Iterator[Runs]:
    one = Runs()
    yield one
    one.close()


def script(tmp_path: Path, text: str, name: str = "hook") -> str:
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def command(tmp_path: Path, text: str, timeout: float = 30.0, deployment: str = "") -> Command:
    deployment = deployment or f"d-{os.urandom(4).hex()}"
    env = {"PATH": os.environ["PATH"], "DEPLOY_ID": deployment}
    return Command((script(tmp_path, text),), env, tmp_path, timeout, deployment)


def run(
    runs: Runs, tmp_path: Path, text: str, cancel: Cancel, timeout: float = 30.0, grace: float = 5.0
) -> tuple[Result, bytes]:
    log = tmp_path / "log"
    result = runs.run(command(tmp_path, text, timeout), log, tmp_path, cancel, grace=grace)
    return result, log.read_bytes()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ---- what to run ------------------------------------------------------------------------------


def situation(tmp_path: Path, hook: Hook, outcome: Outcome | None = None) -> hooks.Situation:
    target = Target(
        "shop", "https://x.example/shop.git", "main", Path("/srv/shop"), None, 60.0, hooks=(hook,)
    )
    return hooks.Situation(
        "d1",
        target,
        Reason.PUSH,
        2,
        B,
        A,
        tmp_path,
        tmp_path / "changed",
        tmp_path / "tmp",
        "/home/x",
        outcome,
    )


def test_the_environment_is_what_the_contract_names_and_no_more(tmp_path: Path) -> None:
    hook = Hook("x", Stage.BUILD, ("/bin/x", "--y"), 5.0, {"PIP_NO_INPUT": "1"})
    made = hooks.command(hook, situation(tmp_path, hook))
    assert made.argv == ("/bin/x", "--y")
    assert dict(made.env) == {
        "PATH": hooks.PATH,
        "HOME": "/home/x",
        "LANG": "C.UTF-8",
        "TMPDIR": str(tmp_path / "tmp"),
        "PIP_NO_INPUT": "1",
        "DEPLOY_ID": "d1",
        "DEPLOY_TARGET": "shop",
        "DEPLOY_STAGE": "build",
        "DEPLOY_REASON": "push",
        "DEPLOY_ATTEMPT": "2",
        "DEPLOY_REPO": "https://x.example/shop.git",
        "DEPLOY_REF": "refs/heads/main",
        "DEPLOY_REVISION": B,
        "DEPLOY_PREVIOUS_REVISION": A,
        "DEPLOY_PATH": "/srv/shop",
        "DEPLOY_TREE": str(tmp_path),
        "DEPLOY_CHANGED_FILES": str(tmp_path / "changed"),
    }


def test_outcome_hooks_are_told_the_outcome(tmp_path: Path) -> None:
    hook = Hook("x", Stage.FAILURE, ("/bin/x",), 5.0)
    made = hooks.command(hook, situation(tmp_path, hook, Outcome.ROLLED_BACK))
    assert made.env["DEPLOY_OUTCOME"] == "rolled-back"


def test_a_program_of_the_tree_is_found_in_the_tree(tmp_path: Path) -> None:
    hook = Hook("x", Stage.BUILD, ("./bin/x",), 5.0)
    assert hooks.command(hook, situation(tmp_path, hook)).argv == (f"{tmp_path}/bin/x",)


# ---- how it ends ------------------------------------------------------------------------------


def test_output_of_both_streams_is_kept(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    result, log = run(runs, tmp_path, "#!/bin/sh\necho out\necho err >&2\npwd\n", cancel)
    assert result.ok
    assert str(result) == "ok"
    assert log.decode() == f"out\nerr\n{tmp_path}\n"


def test_standard_input_is_empty(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    result, log = run(runs, tmp_path, "#!/bin/sh\ncat\necho end\n", cancel)
    assert result.ok
    assert log == b"end\n"


@pytest.mark.parametrize(
    ("text", "result", "says"),
    [
        ("#!/bin/sh\nexit 3\n", Result(exit=3), "exit 3"),
        ("#!/bin/sh\nexit 75\n", Result(exit=75), "exit 75, could not now"),
        ("#!/bin/sh\nkill -SEGV $$\n", Result(signal=signal.SIGSEGV), "killed by SIGSEGV"),
        ("#!/bin/sh\nkill -40 $$\n", Result(signal=40), "killed by signal 40"),
    ],
)
def test_how_a_hook_ended_is_told_as_it_was(
    runs: Runs, tmp_path: Path, cancel: Cancel, text: str, result: Result, says: str
) -> None:
    got, _ = run(runs, tmp_path, text, cancel)
    assert got == result
    assert str(got) == says
    assert not got.ok
    assert got.temporary == (got.exit == 75)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo no shebang\n", "begin it with a line such as #!/bin/sh"),
        ("#!/no/such/interpreter\n", "wants /no/such/interpreter, which is not there"),
        ("#!/bin/sh\r\n", "`sed -i 's/\\r$//' "),
    ],
)
def test_a_hook_that_cannot_start_says_why(
    runs: Runs, tmp_path: Path, cancel: Cancel, text: str, says: str
) -> None:
    result, log = run(runs, tmp_path, text, cancel)
    assert result.not_started
    assert says in str(result)
    assert says.encode() in log


def test_at_its_timeout_it_gets_sigterm_first(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    text = "#!/bin/sh\ntrap 'echo told; exit 0' TERM\nsleep 60 & wait\n"
    result, log = run(runs, tmp_path, text, cancel, timeout=0.3)
    assert result.timed_out == 0.3
    assert str(result) == "timed out after 0.3 s"
    assert log == b"told\n"


def test_one_that_ignores_sigterm_is_killed_with_all_it_started(
    runs: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    text = (
        "#!/bin/sh\ntrap '' TERM\n"
        "setsid sh -c 'trap \"\" TERM; echo $$ > own-session; while :; do sleep 60; done' &\n"
        "sh -c 'echo $$ > child; sleep 60' &\n"
        "while :; do sleep 60; done\n"
    )
    result, _ = run(runs, tmp_path, text, cancel, timeout=1.0, grace=0.2)
    assert result.timed_out == 1.0
    for name in ("own-session", "child"):
        assert not alive(int((tmp_path / name).read_text()))


def test_what_it_leaves_running_is_ended_and_counted(
    runs: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    text = "#!/bin/sh\nsetsid sleep 60 &\necho $! > left\n"
    result, log = run(runs, tmp_path, text, cancel)
    assert result.ok
    assert result.left == 1
    assert b"1 processes that the hook left running were ended" in log
    assert not alive(int((tmp_path / "left").read_text()))


def test_a_stop_ends_it(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    os.mkfifo(tmp_path / "started")
    text = "#!/bin/sh\necho > started\nsleep 60\n"

    def stop_when_started() -> None:
        (tmp_path / "started").read_text()
        cancel.set()

    stopper = threading.Thread(target=stop_when_started)
    stopper.start()
    result, _ = run(runs, tmp_path, text, cancel)
    stopper.join()
    assert result == Result(canceled=True)
    assert str(result) == "ended because the agent is stopping"


def test_leftovers_of_a_dead_agent_are_found_by_the_deployment(tmp_path: Path) -> None:
    name = f"d-{os.urandom(4).hex()}"
    with subprocess.Popen(
        ["setsid", "sleep", "60"], env={"DEPLOY_ID": name, "PATH": os.environ["PATH"]}
    ) as left:
        while not processes.marked(f"DEPLOY_ID={name}"):
            assert left.poll() is None
        assert end_leftovers(name) == 1
        assert left.wait() == -signal.SIGKILL
    assert end_leftovers(name) == 0


# ---- output -----------------------------------------------------------------------------------


def test_binary_output_is_kept_as_it_is(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    text = f"#!{sys.executable}\nimport sys\nsys.stdout.buffer.write(bytes(range(256)))\n"
    _, log = run(runs, tmp_path, text, cancel)
    assert log == bytes(range(256))


def test_of_much_output_the_head_and_the_tail_are_kept(
    runs: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    text = "#!/bin/sh\nseq 1 2000000\n"
    result, log = run(runs, tmp_path, text, cancel)
    assert result.ok
    assert len(log) < 1_300_000
    assert log.startswith(b"1\n2\n3\n")
    assert log.endswith(b"\n1999999\n2000000\n")
    left_out = 14_888_896 - sum(len(line) + 1 for line in log.split(b"\n") if line.isdigit())
    said = int(log.split(b"[gitops-agent: ")[1].split()[0])
    assert abs(said - left_out) < 16  # the line that the cut goes through


def test_a_long_line_is_no_trouble(runs: Runs, tmp_path: Path, cancel: Cancel) -> None:
    result, log = run(runs, tmp_path, "#!/bin/sh\nhead -c 3000000 /dev/zero\n", cancel)
    assert result.ok
    assert len(log) < 1_300_000


def test_output_between_head_and_tail_size_is_whole(tmp_path: Path) -> None:
    with Output((tmp_path / "log").open("wb", buffering=0), 10, 100) as output:
        output.write(b"0123456789abc\n")
        output.write(b"def\n")
        output.note("hello")
    assert (tmp_path / "log").read_bytes() == b"0123456789abc\ndef\n[gitops-agent: hello]\n"


def test_a_log_that_cannot_grow_does_not_fail_the_hook(
    runs: Runs, tmp_path: Path, cancel: Cancel
) -> None:
    one = command(tmp_path, "#!/bin/sh\necho hello\n")
    (tmp_path / "log").symlink_to("/dev/full")
    assert runs.run(one, tmp_path / "log", tmp_path, cancel).ok

"""Whether a hook's program can be started, and if not, why not and what to type (execve(2)).

The kernel's own words for it mislead: of a script whose interpreter is not there it says that the
script is not.
"""

import difflib
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.places import packaged

_FIRST_LINE = 256
"""Bytes of it that the kernel reads; Linux has taken 256 since 5.1."""


@dataclass(frozen=True, slots=True)
class Unstartable:
    """Why a program cannot be started."""

    says: str
    todo: str

    def __str__(self) -> str:
        return f"{self.says}; {self.todo}"


def fault_of(program: Path, tree: Path | None = None) -> Unstartable | None:
    """What keeps whoever asks from starting `program`; None where nothing does.

    In `tree` it comes out of the repository, and is to be mended there.
    """
    if not program.is_file():
        return Unstartable(f"{program} is not there", whence(program, tree))
    if not os.access(program, os.X_OK, effective_ids=True):
        return _mended(f"{program} is not executable", "chmod 755 {}", program, tree)
    if os.statvfs(program).f_flag & os.ST_NOEXEC:
        return Unstartable(f"{program} is on a file system mounted noexec", "move it elsewhere")
    return _fault_of_first_line(program, tree)


def whence(program: Path, tree: Path | None = None) -> str:
    """Where a hook's program may come from that is not there."""
    if tree and program.is_relative_to(tree):
        return "commit it, or mend `run`"
    shipped = packaged("deploy_hooks") / program.name
    if os.access(shipped, os.X_OK):
        command = shlex.join(["install", "-D", str(shipped), str(program)])
        return f"it comes with gitops-agent: `{command}`"
    near = difflib.get_close_matches(program.name, _names_in(program.parent), 1)
    return f"did you mean {near[0]}?" if near else "put it there, or mend the name"


def _names_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return [path.name for path in folder.iterdir()]
    return []


def _fault_of_first_line(program: Path, tree: Path | None) -> Unstartable | None:
    try:
        with program.open("rb") as file:
            first = file.read(_FIRST_LINE).partition(b"\n")[0]
    except PermissionError:
        return None
    if first.startswith(b"\x7fELF"):
        return None
    if not first.startswith(b"#!"):
        todo = "begin it with a line such as #!/bin/sh"
        return Unstartable(f"{program} has no #! line", todo)
    if first.endswith(b"\r"):
        says = f"{program} has Windows line ends, so it cannot be started"
        return _mended(says, "sed -i 's/\\r$//' {}", program, tree)
    interpreter = os.fsdecode((first[2:].split() or [b""])[0])
    if not os.access(interpreter, os.X_OK, effective_ids=True):
        says = f"{program} wants {interpreter or 'nothing'}, which is not there"
        return Unstartable(says, "install it, or mend the first line")
    return None


def _mended(says: str, command: str, program: Path, tree: Path | None) -> Unstartable:
    if tree and program.is_relative_to(tree):
        inner = shlex.quote(str(program.relative_to(tree)))
        return Unstartable(says, f"`{command.format(inner)}` in the repository, and push that")
    return Unstartable(says, f"`{command.format(shlex.quote(str(program)))}`")

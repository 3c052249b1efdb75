"""What root's agent.toml grants: which hooks there are, whom they run as, how much they may take.

Only `runner` asks, as root. The file is read anew for every hook, with the readers that the agent
has, and believed only where nobody but root could have changed it.
"""

import os
import pwd
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.acl import has_list
from agent.kinds import (
    HOOK_TIMEOUT,
    MAIN,
    Argv,
    Branch,
    Environment,
    Name,
    Repo,
    Size,
    Timeout,
    TreePath,
    called,
)
from agent.model import Hook, Rights, Stage, Strategy, Target
from agent.places import SYSTEM_HOOK_USER, Places
from agent.readers import readers
from agent.supervisor import User

CHANGED = (
    "agent.toml is not what the agent has read; `systemctl reload gitops-agent` has it read again"
)


class Refused(Exception):
    """Nothing is run; the message is for the operator."""


class Configuration:
    """The hooks in one agent.toml. Refused where there is none as asked, or one not to be run."""

    def __init__(self, path: Path, agent: User) -> None:
        self._agent = agent
        check_unchangeable(path, agent, {0})
        self._document = tomllib.loads(path.read_bytes().decode())
        self._read = readers(Places(path, self._document, {}), {})

    def target(self, name: str, number: int) -> Target:
        """The target of that name with only one of its hooks, the one with that number."""
        try:
            table = self._document["targets"][name]
            hook = self._hook(table, table["hooks"][number])
            return self._target(name, table, hook)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Refused(CHANGED) from None
        except ValueError as error:
            raise Refused(f"targets.{name}: {error}") from None

    def _target(self, name: str, table: Mapping[str, Any], hook: Hook) -> Target:
        return Target(
            name, self._value(table, "repo", Repo), self._value(table, "branch", Branch, MAIN),
            self._value(table, "path", TreePath), None, 0.0, hooks=(hook,),
            strategy=Strategy(table.get("strategy", Strategy.IN_PLACE)),
        )  # fmt: skip

    def _hook(self, target: Mapping[str, Any], hook: Mapping[str, Any]) -> Hook:
        run = self._value(hook, "run", Argv)
        return Hook(
            self._value(hook, "name", Name, called(run)),
            self._value(hook, "stage", Stage, Stage.ACTIVATE), run,
            self._value(hook, "timeout", Timeout, HOOK_TIMEOUT),
            self._value(hook, "env", Environment, {}),
            Rights(
                str(hook.get("user") or target.get("user") or SYSTEM_HOOK_USER),
                self._limit(target, hook, "memory_max", Size),
                self._limit(target, hook, "tasks_max", int),
            ),
        )  # fmt: skip

    def _value(self, table: Mapping[str, Any], key: str, kind: Any, default: Any = None) -> Any:
        if default is None:
            return self._read[kind](table[key], kind)
        return self._read[kind](table[key], kind) if key in table else default

    def _limit(
        self, target: Mapping[str, Any], hook: Mapping[str, Any], key: str, kind: Any
    ) -> int | None:
        table = hook if key in hook else target
        return self._value(table, key, kind) if key in table else None

    def user(self, hook: Hook) -> User:
        """Whom it runs as: never the agent, whose credentials a process of its uid can read."""
        assert hook.rights.user
        user = find_user(hook.rights.user)
        if user.uid == self._agent.uid:
            raise Refused(f"user = {user.name!r} is the agent's own; a hook has to be another's")
        if hook.run[0].startswith("./"):
            if user.uid == 0:
                raise Refused(f"{hook.run[0]} comes out of the repository and never runs as root")
        else:
            check_unchangeable(Path(hook.run[0]), self._agent, {0, user.uid})
        return user


def find_user(name: str) -> User:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Refused(f"there is no user {name!r} on this host") from None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def check_unchangeable(path: Path, agent: User, owners: Iterable[int]) -> None:
    """Refused where the agent could put something else in the place of `path`.

    The file and every folder on the way to it belong to one of `owners`.
    """
    groups = set(os.getgrouplist(agent.name, agent.gid))
    real = path.resolve()
    for one in {*path.absolute().parents, real, *real.parents}:
        try:
            found = one.stat()
        except OSError as error:
            raise Refused(f"{one}: {error.strerror}") from None
        mode = found.st_mode
        # With a list the group's bits are the most that anybody in it may (acl(5)).
        by_group = mode & stat.S_IWGRP and (found.st_gid in groups or has_list(one))
        by_all = mode & stat.S_IWOTH and not mode & stat.S_ISVTX
        if found.st_uid not in owners or by_group or by_all:
            raise Refused(f"{one} can be changed by others than root; `chown root: {one}`,"
                          f" `chmod go-w {one}`")  # fmt: skip

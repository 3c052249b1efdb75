"""What agent.toml may not ask of root, in whom hooks run as and how much they may take.

Pure, but for whether there is a hook runner on this host, which `places` has found.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agent.places import SYSTEM_CONFIG, SYSTEM_HOOKS, SYSTEM_USER, Places

_KEYS = ("user", "memory_max", "tasks_max")
_NO_RUNNER = (
    f"only the hook runner can do that, for {SYSTEM_CONFIG}, and its socket {SYSTEM_HOOKS} is not"
    " there; `gitops-agent install` sets it up and `systemctl start gitops-agent-hooks.socket`"
    " starts it. Without it hooks run as whoever runs the agent: leave the key out"
)
_AGENT_ITSELF = "is the agent itself, whose secrets such a hook could read; name another user"
_ROOT_S = (
    "comes out of the repository and never runs as root; name another user, or put a program of"
    " your own into hooks_dir"
)


def faults(document: Mapping[str, Any], places: Places) -> Iterator[str]:
    """Each with its key path; never is such a key passed over in silence."""
    for path, target in _tables(document.get("targets"), "targets.{}"):
        yield from _of_table(path, target, places)
        for inner, hook in _tables(target.get("hooks"), f"{path}.hooks[{{}}]"):
            yield from _of_table(inner, hook, places)
            if hook.get("user", target.get("user")) == "root" and _is_of_the_tree(hook.get("run")):
                yield f"{inner}.run: {_ROOT_S}"


def _of_table(path: str, table: Mapping[str, Any], places: Places) -> Iterator[str]:
    if places.hooks_socket is None:
        yield from (f"{path}.{key}: {_NO_RUNNER}" for key in _KEYS if key in table)
    elif table.get("user") == SYSTEM_USER:
        yield f"{path}.user: {_AGENT_ITSELF}"


def _is_of_the_tree(run: object) -> bool:
    return isinstance(run, list) and bool(run) and str(run[0]).startswith("./")


def _tables(found: object, form: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tables in a table or a list, each with its key path; anything else is a fault already."""
    keyed = found if isinstance(found, dict) else {}
    for key, table in enumerate(found) if isinstance(found, list) else keyed.items():
        if isinstance(table, dict):
            yield form.format(key), table

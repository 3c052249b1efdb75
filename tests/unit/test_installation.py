"""What belongs on a host, as data; what becomes of it on a real one is in tests/systemd/."""

from pathlib import Path

import pytest

from agent import installation
from agent.installation import UNITS, File, LetIn
from agent.places import SYSTEM_CONFIG, Places

PLACES = Places(SYSTEM_CONFIG, {}, {})


def drop_ins(document: dict[str, object]) -> dict[str, str]:
    return {file.path.name: file.text for file in installation.drop_ins(document, PLACES)}


def test_every_unit_is_started_at_boot_sockets_first() -> None:
    names = installation.units()
    sockets = [name for name in names if name.endswith(".socket")]
    assert set(names) >= {
        "gitops-agent.service",
        "gitops-agent-receiver.service",
        "gitops-agent-receiver.socket",
        "gitops-agent-feed.socket",
        "gitops-agent-hooks.socket",
    }
    assert list(names[: len(sockets)]) == sockets


def test_files_go_where_systemd_looks_for_them() -> None:
    files = {str(file.path): file for file in installation.system_files()}
    assert UNITS / "gitops-agent.service" in map(Path, files)
    assert "u     gitops-agent " in files["/etc/sysusers.d/gitops-agent.conf"].text
    assert "/run/gitops-agent " in files["/etc/tmpfiles.d/gitops-agent.conf"].text
    assert "[targets.shop]" in files["/etc/gitops-agent/agent.toml.example"].text
    assert not any(file.once for file in files.values())


def test_what_is_the_operator_s_is_written_once_and_secrets_are_private() -> None:
    files = list(installation.operators_files("the secret"))
    assert all(file.once for file in files)
    assert File(installation.SECRET, "the secret\n", 0o600, once=True) in files
    modes = {file.path.name: file.mode for file in files}
    assert (modes["install-venv"], modes["README.md"]) == (0o755, 0o644)


@pytest.mark.parametrize(
    ("bind", "line"),
    [
        ("0.0.0.0:8080", "ListenStream=0.0.0.0:8080\n"),
        ("[::1]:9000", "ListenStream=[::1]:9000\n"),
        ("unix:/run/hooks.sock", "ListenStream=/run/hooks.sock\n"),
    ],
)
def test_another_address_is_a_drop_in(bind: str, line: str) -> None:
    text = drop_ins({"server": {"bind": bind}})["bind.conf"]
    assert text.endswith(f"[Socket]\nListenStream=\n{line}")


def test_targets_elsewhere_are_a_drop_in() -> None:
    targets = {"a": {"path": "/srv/a"}, "b": {"path": '/opt/my "b" 100%'}, "c": {"path": 1}, "d": 2}
    text = drop_ins({"targets": targets})["paths.conf"]
    assert text.endswith('[Service]\nReadWritePaths="-/opt/my \\"b\\" 100%%"\n')
    paths = installation.target_paths({"targets": targets}, PLACES)
    assert paths == [Path("/srv/a"), Path('/opt/my "b" 100%')]


def test_users_of_hooks_are_let_in_and_the_core_into_what_they_make() -> None:
    hook = {"run": ["x"]}
    targets = {
        "a": {"path": "/srv/a", "user": "shop", "hooks": [hook, {"user": "ada"}]},
        "b": {"path": "/srv/b", "strategy": "releases", "hooks": [hook, {"user": "root"}]},
        "c": {"path": "/srv/c", "hooks": [{"user": "root"}]},
        "d": {"path": "/srv/d"},
        "e": {"hooks": [hook]},
        "f": 1,
    }
    found = list(installation.let_in({"targets": targets}, PLACES))
    assert found == [
        LetIn(
            Path("/srv/a"), {"ada": 7, "shop": 7}, {"ada": 7, "shop": 7, "gitops-agent": 7},
            sticky=True,
        ),
        LetIn(
            Path("/srv/b"), {"gitops-agent-hooks": 5}, {"gitops-agent-hooks": 7, "gitops-agent": 7},
            sticky=False,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [{}, {"server": {"bind": "127.0.0.1:9000"}, "targets": {"a": {"path": "/srv/a"}}},
     {"server": 1, "targets": 1}],
)  # fmt: skip
def test_without_either_there_is_no_drop_in(document: dict[str, object]) -> None:
    assert set(drop_ins(document).values()) == {""}


def test_a_program_that_the_units_would_not_see_is_refused() -> None:
    for place in ("/home/ada/venv", "/root/venv", "/tmp/venv"):
        told = installation.why_not_from(Path(place, "bin/gitops-agent"))
        assert told
        assert "/opt/gitops-agent" in told
    assert installation.why_not_from(Path("/opt/gitops-agent/bin/gitops-agent")) is None

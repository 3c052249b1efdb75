import os

import pytest

from agent import surroundings


def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/root",
        "GIT_DIR": "/evil",
        "LD_PRELOAD": "x",
        "TOKEN": "x",
        "https_proxy": "p",
        "TERM": "xterm",
    }
    monkeypatch.setattr(os, "environ", environ)
    surroundings.scrub()
    assert environ == {"PATH": "/bin", "HOME": "/root", "https_proxy": "p", "TERM": "xterm"}

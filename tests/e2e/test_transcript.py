"""docs/operations.md shows a bad deploy as the commands print it, but for names and numbers."""

import re
from pathlib import Path

from tests.agents import Agent
from tests.remotes import Upstream

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
COMMANDS = ("status", "history shop", "logs shop")
HOOKS = {
    "build": 'echo "building $DEPLOY_REVISION"',
    "reload": 'echo "reloading into $DEPLOY_PATH"',
    "smoke": 'echo "GET /health: $(cat health)"; test "$(cat health)" = 200',
}
STAGES = {"build": "build", "reload": "activate", "smoke": "verify"}

_VARIES = {
    r"gitops-agent \d\S*, pid \d+": "gitops-agent VERSION, pid PID",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "DATE",
    r"\b\d{8}-\d{6}-[0-9a-f]{6}\b": "ID",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "DELIVERY",
    r"\b[0-9a-f]{40}\b": "REVISION",
    r"\b[0-9a-f]{12}\b": "REVISIO",
    r"\b[0-9a-f]{10}\b": "REV",
    r"\b\d+(\.\d+)? (ms|s|min|h|d)\b": "TIME",
    r"(?<=\S) {2,}": "  ",
}


def shape(text: str) -> list[str]:
    """Its lines, with a word for whatever is another each time."""
    for pattern, word in _VARIES.items():
        text = re.sub(pattern, word, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def shown() -> dict[str, list[str]]:
    """What the page says that each command prints."""
    block = OPERATIONS.read_text().partition("## A bad deploy")[2].split("```")[1]
    parts = re.split(r"^\$ (.*)\n", block.removeprefix("console\n"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], map(shape, parts[1::2]), strict=True))


def test_a_bad_deploy_is_shown_as_it_is_printed(agent: Agent, upstream: Upstream) -> None:
    for name, text in HOOKS.items():
        agent.hook(name, text)
    hooks = "".join(
        f'[[targets.shop.hooks]]\nstage = "{stage}"\nrun = ["{name}"]\n'
        for name, stage in STAGES.items()
    )
    agent.configure(hooks, poll="20m", target='strategy = "releases"')
    good = upstream.commit({"health": "200"}, "first page")
    agent.start()
    agent.finished(good)
    bad = upstream.commit({"health": "500"}, "third page, which does not work")
    agent.push(bad)
    agent.finished(bad)
    page = shown()
    for words in COMMANDS:
        printed = agent.command(*words.split()).stdout.replace(str(agent.tree), "/srv/shop")
        assert shape(printed) == page[f"gitops-agent {words}"]
    assert str((agent.tree / "current").readlink()) == f"releases/{good}"
    assert page["readlink /srv/shop/current"] == ["releases/REVISION"]

"""A burst of deliveries while a deployment runs. `python -m tests.soak.burst 10000`

Every tenth is a duplicate and their order is shuffled. Prints one line: answers by status, the
slowest answer, questions to the remote and deployments that it led to, and whether the branch's end was live.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.agents import SECRET, Agent
from tests.remotes import Upstream, delivery, push_payload, serve_http

_AT_ONCE = 64


@dataclass
class Figures:
    answers: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    asked: int = 0
    deployments: int = 0
    tip_live: bool = False

    def __str__(self) -> str:
        answers = ", ".join(f"{count} × {status}" for status, count in sorted(self.answers.items()))
        live = "live" if self.tip_live else "NOT LIVE"
        return (
            f"{self.answers.total()} deliveries: {answers}; slowest {self.slowest * 1000:.0f} ms;"
            f" {self.asked} questions to the remote, {self.deployments} deployments, the branch's end {live}"
        )


async def _send_all(
    url: str, deliveries: list[tuple[dict[str, str], bytes]], figures: Figures
) -> None:
    waiting = iter(deliveries)
    limits = httpx.Limits(max_connections=_AT_ONCE)
    async with httpx.AsyncClient(limits=limits, timeout=30) as http:

        async def send() -> None:
            for headers, body in waiting:
                began = time.monotonic()
                answer = await http.post(f"{url}/webhook/github", headers=headers, content=body)
                figures.slowest = max(figures.slowest, time.monotonic() - began)
                figures.answers[answer.status_code] += 1

        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))


def run(root: Path, count: int) -> Figures:
    figures = Figures()
    upstream = Upstream(root / "upstream")
    with serve_http(upstream.path.parent) as remote:
        agent = Agent(root / "agent", remote.url())
        agent.hook("slow", f"#!/bin/bash\nread -t 1 nothing <> <(:)\necho ran >> {agent.root}/ran")
        agent.configure('[[targets.shop.hooks]]\nrun = ["slow"]\n')
        revisions = [upstream.commit({"n": str(n)}) for n in range(5)]
        agent.start()
        agent.finished(revisions[-1])
        tip = upstream.commit({"n": "the end"})
        before = len(remote.requests)
        deliveries = [
            delivery("push", push_payload(agent.repo, random.choice([*revisions, tip])), SECRET)
            for _ in range(count * 9 // 10)
        ]
        deliveries += random.choices(deliveries, k=count - len(deliveries))
        random.shuffle(deliveries)
        asyncio.run(_send_all(agent.url, deliveries, figures))
        agent.finished(tip)
        with agent.client() as client:
            while (target := client.status()["targets"][0])["syncing"]:
                time.sleep(0.05)
            figures.tip_live = target["live"] == tip
        figures.asked = len(remote.requests[before:])
        figures.deployments = len(agent.history()) - 1
        agent.stop()
    return figures


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), count)
    sys.stdout.write(f"{figures}\n")
    sys.exit(0 if figures.tip_live and set(figures.answers) <= {200, 202} else 1)


if __name__ == "__main__":
    main()

"""An agent that waits, beside the libraries it is built from, merely imported and serving.

`python -m tests.bench.idle PORT` is that floor.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.agents import Agent
from tests.bench.programs import Program, free_port, python, started
from tests.bench.settings import Effort
from tests.bench.table import Row, under, within
from tests.remotes import Upstream

_FLOOR = "its libraries, imported and serving"
_SETTLED = 2.0


def rows(root: Path, effort: Effort) -> Iterator[Row]:
    upstream = Upstream(root / "upstream")
    revision = upstream.commit({"a": "1"})
    one = Agent(root / "agent", upstream.url)
    one.configure(poll="3m")
    ready: dict[str, list[float]] = {"ours": [], "floor": []}
    memory: dict[str, list[float]] = {"ours": [], "floor": []}
    used: dict[str, list[float]] = {"ours": [], "floor": []}
    # The first start deploys, and compiles what there is to compile.
    one.start()
    one.finished(revision)
    one.stop()
    for _ in range(effort.rounds):
        port = free_port()
        programs = {
            "ours": (python("agent", "run", "--config", str(one.config)), one.port),
            "floor": (python("tests.bench.idle", str(port)), port),
        }
        for name, (command, listening) in programs.items():
            began = time.monotonic()
            with started(command, root / "log", listening, core=None) as program:
                ready[name].append(time.monotonic() - began)
                time.sleep(_SETTLED)
                memory[name].append(program.memory())
                used[name].append(_part_of_a_core(program, 2 * effort.seconds))
    yield Row.of("idle: memory", "MB", memory["ours"], _FLOOR, memory["floor"], within(12, "MB"))
    yield Row.of("start to ready", "s", ready["ours"], _FLOOR, ready["floor"], within(0.25, "s"))
    yield Row.of("idle: of one core", "%", used["ours"], _FLOOR, used["floor"], under(0.5, "%"))


def _part_of_a_core(program: Program, seconds: float) -> float:
    before = program.seconds()
    time.sleep(seconds)
    return (program.seconds() - before) / seconds * 100


# ---- the floor --------------------------------------------------------------------------------


def main() -> None:
    import apscheduler.schedulers.asyncio
    import cattrs
    import click
    import git
    import structlog
    import uvicorn
    import uvloop
    from litestar import Litestar, get

    @get("/", sync_to_thread=False)
    def hello() -> str:
        return "hello"

    log = structlog.get_logger()
    log.info("floor", of=[one.__name__ for one in (apscheduler, cattrs, click, git)])
    app = Litestar([hello], openapi_config=None)
    config = uvicorn.Config(app, port=int(sys.argv[1]), log_config=None, access_log=False)
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()

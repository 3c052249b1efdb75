"""A hook that prints a great deal. `python -m tests.soak.loud_hook 1000`  (in MB)

Prints one line: what it printed, what of it was kept, and the agent's memory before and at most.
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.agents import Agent
from tests.remotes import Upstream


@dataclass
class Figures:
    printed_mb: int
    kept: int
    idle_kb: int
    peak_kb: int

    @property
    def grown_mb(self) -> float:
        return (self.peak_kb - self.idle_kb) / 1024

    def __str__(self) -> str:
        return (
            f"{self.printed_mb} MB printed, {self.kept / 1e6:.1f} MB kept; memory {self.idle_kb // 1024}"
            f" MB idle, {self.grown_mb:.1f} MB more at its peak"
        )


def memory(pid: int, field: str) -> int:
    """A figure of /proc/pid/status, in KiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def run(root: Path, megabytes: int) -> Figures:
    upstream = Upstream(root / "upstream")
    agent = Agent(root / "agent", upstream.url)
    agent.hook("loud", f"if [ -e loud ]; then yes 'a line of output' | head -c {megabytes}M; fi")
    agent.configure('[[targets.shop.hooks]]\nrun = ["loud"]\n')
    a = upstream.commit({"a": "1"})
    agent.start()
    agent.finished(a)
    idle = memory(agent.pid, "VmRSS")
    b = upstream.commit({"loud": ""})
    agent.push(b)
    done = agent.finished(b)
    assert done["outcome"] == "deployed"
    peak = memory(agent.pid, "VmHWM")
    kept = sum(path.stat().st_size for path in (agent.state_dir / "logs").rglob("*.log"))
    agent.stop()
    return Figures(megabytes, kept, idle, peak)


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        figures = run(Path(root), megabytes)
    sys.stdout.write(f"{figures}\n")
    sys.exit(0 if figures.grown_mb < 16 else 1)


if __name__ == "__main__":
    main()

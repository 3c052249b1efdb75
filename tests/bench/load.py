"""Load from a process of its own: wrk, on a core of its own, every delivery with its own id."""

import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.agents import SECRET
from tests.bench.programs import LOADED, need
from tests.remotes import delivery

_SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What some seconds of load came to; times in milliseconds."""

    requests: int
    a_second: float
    p50: float
    p99: float


def request_file(folder: Path, path: str, payload: dict[str, object], size: int) -> Path:
    """A whole signed request of `size` bytes of body, without its id."""
    import json

    padded = {**payload, "padding": ""}
    short = size - len(json.dumps(padded))
    headers, body = delivery(
        "push", json.dumps({**padded, "padding": "x" * short}).encode(), SECRET
    )
    headers["X-GitHub-Delivery"] = "DELIVERY-ID"
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    file = folder / f"request-{uuid.uuid4().hex}"
    file.write_bytes("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return file


def load(port: int, request: Path, connections: int, seconds: float) -> Loaded:
    """Send `request` over and over; an error or a refusal in it is an error here."""
    command = [
        "taskset", "-c", LOADED, need("wrk", "wrk"), "--threads=1", f"--connections={connections}",
        f"--duration={seconds:g}s", "--timeout=20s", f"--script={_SCRIPT}",
        f"http://127.0.0.1:{port}", "--", str(request), f"{uuid.uuid4().hex}-",
    ]  # fmt: skip
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = [line.split()[1:] for line in told.splitlines() if line.startswith("FIGURES ")]
    assert figures, told
    requests, duration, p50, p99, errors = map(float, figures[0])
    assert requests > 0 == errors, told
    return Loaded(int(requests), requests / (duration / 1e6), p50 / 1e3, p99 / 1e3)

"""The receiver's floor: a bare ASGI application, on our server, with our check and our inbox.

`python -m tests.bench.floor PORT STATE_DIR SECRET`
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from agent.connections import Limits
from agent.forges import FORGES
from agent.inbox import Inbox
from agent.model import Delivery, Push
from agent.server import Server, bind


class Bare:
    """Reads the body, checks its signature, has it recorded, answers."""

    def __init__(self, inbox: Inbox, secret: bytes) -> None:
        self._inbox = inbox
        self._secrets = (secret,)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        signer = FORGES["github"].signer(self._secrets)
        body = b""
        while True:
            message = await receive()
            signer.update(message["body"])
            body += message["body"]
            if not message["more_body"]:
                break
        status = 401
        if signer.matched(headers[b"x-hub-signature-256"]) is not None:
            await self._record(headers, body)
            status = 202
        answer = b'{"status":"queued"}'
        length = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": length})
        await send({"type": "http.response.body", "body": answer})

    async def _record(self, headers: dict[bytes, bytes], body: bytes) -> None:
        event = FORGES["github"].parse("push", "application/json", body)
        assert isinstance(event, Push)
        number = headers[b"x-github-delivery"].decode()
        delivery = Delivery("github", number, "push", 0)
        received = self._inbox.receive([(delivery, event, ("shop",))], time.time())
        await asyncio.wrap_future(received)


async def serve(port: int, state_dir: Path, secret: bytes) -> None:
    inbox = Inbox(state_dir)
    await Server(Bare(inbox, secret), [bind(f"127.0.0.1:{port}")], Limits()).serve_all()


def main() -> None:
    port, state_dir, secret = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(port), Path(state_dir), secret.encode()))


if __name__ == "__main__":
    main()

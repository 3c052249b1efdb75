"""A stream of signed deliveries, each over a connection of its own, until standard input ends.

`python -m tests.systemd.stream PORT REPO REVISION SECRET` prints one line for each at the end: how
it was answered, and its id. Runs in the machine's network and in nothing else of it.
"""

import sys
import threading

import httpx

from tests.remotes import delivery, push_payload

_SENDERS = 4
_PAUSE = 0.02


def send(http: httpx.Client, url: str, payload: dict[str, object], secret: str) -> str:
    """Send one; gives how that ended."""
    headers, body = delivery("push", payload, secret)
    try:
        answer = http.post(url, headers=headers | {"Connection": "close"}, content=body)
    except httpx.ConnectError:
        return "refused -"
    except httpx.TransportError as error:
        return f"cut-off {type(error).__name__}"
    return f"{answer.status_code} {headers['X-GitHub-Delivery']}"


def main() -> None:
    port, repo, revision, secret = sys.argv[1:]
    url, payload = f"http://127.0.0.1:{port}/webhook/github", push_payload(repo, revision)
    over = threading.Event()
    lines: list[str] = []

    def sender() -> None:
        with httpx.Client(timeout=60) as http:
            while not over.wait(_PAUSE):
                lines.append(send(http, url, payload, secret))

    threads = [threading.Thread(target=sender) for _ in range(_SENDERS)]
    for one in threads:
        one.start()
    sys.stdin.read()
    over.set()
    for one in threads:
        one.join()
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()

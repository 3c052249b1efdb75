"""The process that carries out one order: read it, send it, end with a status that says how."""

import sys
from importlib import import_module
from typing import Any

import msgspec

from agent.notifiers import EX_TEMPFAIL, EX_UNAVAILABLE, Order, Undelivered


def main() -> int:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sink: Any = import_module(f"agent.notifiers.{order.kind}")
    try:
        sink.send(msgspec.convert(order.settings, sink.Settings), order.messages)
    except Undelivered as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return EX_TEMPFAIL if error.again else EX_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())

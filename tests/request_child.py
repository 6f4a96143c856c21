"""A child of `RequestProcesses` for tests: it answers, crashes, hangs or uses memory, as the request says."""

import os
import sys
import time

from alnnode.process import request_processes


def answer(request: bytes) -> list[bytes]:
    word, _, rest = request.partition(b" ")
    if word == b"abort":
        os.abort()
    if word == b"hang":
        while True:
            time.sleep(0.1)
    if word == b"memory":
        try:
            bytearray(int(rest))
        except MemoryError:
            return [b"no memory"]
    if word == b"print":
        sys.stdout.write("words of a library")
        sys.stdout.flush()
    if word == b"pid":
        return [str(os.getpid()).encode()]
    return [rest, b"!"]


if __name__ == "__main__":
    request_processes.IDLE = float(os.environ.get("REQUEST_CHILD_IDLE", "300"))
    request_processes.answer_requests(answer, request_processes.RequestLimits(seconds=2, memory=1 << 30))

"""``python -m hosts.play``: type the commands of docs/hosts.md on hosts in network namespaces, as a newcomer copies them.

Each host is one shell with the addresses of the page, and with folders ``/etc``, ``/srv`` and ``/opt`` of its own; ``/srv`` is the same folder
on the hosts of the node. Only the installation is not played: the command ``alnnode`` is that of this checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from chaos.peers import Pacs
from processes import descendants

from hosts.network import Network, missing
from hosts.plan import REPOSITORY
from hosts.services import Postgres, Redis

PAGE = REPOSITORY / "docs" / "hosts.md"
# In the order of their addresses, which are those of the page.
HOSTS = ["balancer", "first", "second", "db", "redis", "pacs", "sender"]
BLOCK = re.compile(r"<!-- (\w+): (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
LIMIT = 1200.0  # seconds until a study is delivered, on a busy machine


@dataclass(frozen=True, slots=True)
class Block:
    """The commands of one step: on which hosts, and whether they are typed (all but "install")."""

    hosts: tuple[str, ...]
    kind: str
    commands: str


def blocks(page: str) -> list[Block]:
    """Return the steps of a page in order."""
    return [Block(("first", "second") if who == "both" else (who,), kind, text) for who, kind, text in BLOCK.findall(page)]


class Shell:
    """A shell on a host, which keeps what was exported and started."""

    def __init__(self, network: Network, host: str, folder: Path, shared: Path) -> None:
        self._host, self._home = host, folder / host
        self._home.mkdir()
        shutil.copytree("/etc", self._home / "etc", symlinks=True, ignore_dangling_symlinks=True)
        program = self._home / "bin" / "alnnode"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -m alnnode "$@"\n', encoding="ascii")
        program.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "TCP_NODELAY": "1",
        }
        command = ["unshare", "--mount", "--propagation", "private", "bash"]
        with network.inside(host):
            self._bash = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                cwd=self._home,
            )
        self.type(f'mount --bind "{self._home}/etc" /etc && mount --bind "{shared}" /srv && mkdir -p /srv/alnnode')

    def type(self, commands: str) -> str:
        """Type commands, and return what they print until the prompt is back."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = uuid4().hex
        self._bash.stdin.write(f"{commands}\necho {mark} $?\n")
        self._bash.stdin.flush()
        lines = []
        for line in self._bash.stdout:
            if mark in line:
                status = line.split(mark)[1].strip()
                text = "".join(lines)
                assert status == "0", f"on {self._host}: {commands}\n{text}"
                return text
            lines.append(line)
        raise AssertionError(f"the shell on {self._host} ended: {''.join(lines)}")

    def lose(self) -> None:
        """End the host at once, with everything that runs on it."""
        for pid in [*descendants(self._bash.pid), self._bash.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._bash.wait()


def quiet(commands: str) -> str:
    """Return commands whose background processes write into a file: the terminal of this player is a pipe."""
    return re.sub(r" &$", " >>started.log 2>&1 &", commands, flags=re.MULTILINE)


def until_delivered(shell: Shell, commands: str, count: int) -> str:
    """Type the look at the job list until so many jobs are delivered; return the list."""
    deadline = time.monotonic() + LIMIT
    while True:
        listed = shell.type(commands)
        if listed.count("DELIVERED") >= count:
            return listed
        assert time.monotonic() < deadline, f"not delivered after {LIMIT:.0f} s:\n{listed}"
        time.sleep(2)


def send_again(sender: Shell, commands: str) -> None:
    """Type the commands of the sender with another patient until the load balancer has noticed that a host is gone."""
    other = commands.replace("alnnode phantom study", "rm -r study && alnnode phantom study --seed 2")
    deadline = time.monotonic() + 60
    while True:
        with suppress(AssertionError):
            sender.type(other)
            return
        assert time.monotonic() < deadline, "no listener takes the second study"


def play(folder: Path) -> list[str]:
    """Play the page; return what was seen."""
    steps, seen = blocks(PAGE.read_text(encoding="utf-8")), []
    shared = folder / "shared"
    shared.mkdir()
    with ExitStack() as stack:
        network = stack.enter_context(Network(HOSTS))
        postgres, redis = (
            Postgres(network, "db", folder / "postgres.log", "alnnode"),
            Redis(network, "redis", folder / "redis.log"),
        )
        stack.callback(postgres.close)
        stack.callback(redis.close)
        redis.service.start()
        with network.inside("pacs"):
            pacs = Pacs(address=("0.0.0.0", 104))
        stack.callback(pacs.close)
        shells = {host: Shell(network, host, folder, shared) for host in ("balancer", "first", "second", "sender")}
        for shell in shells.values():
            stack.callback(shell.lose)
        last = steps[-1]
        for step in steps[:-1]:
            for host in step.hosts:
                if step.kind != "install":
                    print(f"--- {host}: {step.kind}\n{step.commands.rstrip()}", flush=True)
                    print(shells[host].type(quiet(step.commands)).rstrip(), flush=True)
            if step.kind == "start":
                time.sleep(8)
        print(until_delivered(shells["second"], last.commands, 1))
        seen.append(f"a study was sent to the load balancer and delivered: {len(pacs.received)} objects at the PACS")
        shells["first"].lose()
        sender = next(step for step in steps if step.hosts == ("sender",))
        send_again(shells["sender"], sender.commands)
        print(until_delivered(shells["second"], last.commands, 2))
        seen.append(
            f"the first host was lost; the second one received, analysed and delivered the next study: {len(pacs.received)} objects"
        )
        assert len(pacs.reports) == 2
    return seen


def main() -> int:
    """Play the page and print what was seen."""
    if lacking := missing():
        print(f"cannot run: this machine lacks {lacking}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="alnnode-play-"))
    folder.chmod(0o755)
    print("\n".join(["", *play(folder), "every command of docs/hosts.md did what the page says"]))
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

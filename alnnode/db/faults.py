"""What a fault of the database means, in words, with what to do. No text quotes the driver, whose messages may hold a password or parameters.

libpq gives no SQLSTATE for a connection that failed: its message, which is English unless the server has another ``lc_messages``, is the only
source. A message that is not known is named by its class.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

_URL: Final = "[database] url"
# The tables of a node without the row that names their schema, or those of another program.
_TABLES: Final = (
    r"already exists",
    "the database {name} has tables, but no schema of a node",
    "use an empty database, or restore a backup",
)
# Patterns in the message of libpq or of the server; then fault and advice.
_POSTGRES: Final = (
    _TABLES,
    (r"password authentication failed|role .* does not exist|no password supplied",
     "{server} does not accept the user {user} with this password", f"correct user and password in {_URL}"),
    (r"database .* does not exist", "{server} has no database {name}", f"create it, or correct {_URL}"),
    (r"no pg_hba.conf entry", "{server} does not admit the user {user} from this host", "add the host to pg_hba.conf of the server"),
    (r"permission denied", "the user {user} may not use or create tables in the database {name}", "make this user the owner of the database"),
    (r"too many clients|remaining connection slots", "{server} has no free connection", "raise max_connections of the server"),
    (r"read-only transaction|recovery mode|hot standby", "{server} is a replica, or read-only", f"give the primary server in {_URL}"),
    (r"starting up|shutting down", "{server} starts or stops", "try again in a minute"),
    (r"does not support SSL", "{server} offers no TLS", f"enable TLS there, or correct sslmode in {_URL}"),
    (r"certificate|SSL error", "no TLS connection with {server}", f"correct sslmode and sslrootcert in {_URL}"),
    (r"invalid connection option|invalid .*sslmode|invalid port",
     "an option of the URL is not one of libpq", f"correct what follows ? in {_URL}"),
    (r"failed to resolve host|could not translate host name", "cannot resolve host {host}", f"check the host in {_URL}, and the DNS server"),
    (r"[Cc]onnection refused|No such file or directory", "nothing listens on {where}", f"check that PostgreSQL runs, and host and port in {_URL}"),
    (r"timeout", "no answer of a PostgreSQL server from {where}", f"check host and port in {_URL}, and the firewalls"),
)  # fmt: skip
_SQLITE: Final = (
    _TABLES,
    (r"not a database|malformed", "{name} is no SQLite database, or is damaged", "correct [node] data_dir, or restore a backup"),
    (r"unable to open|readonly|permission", "this user cannot open and write {name}",
     "run the command as the user of the node, or correct the owner of the file and its folder"),
    (r"disk is full", "the disk of {name} is full", "free space"),
    (r"disk I/O error", "the disk does not read or write {name}", "check the disk and its mount"),
    (r"locked", "another program has locked {name}", "end that program"),
)  # fmt: skip


@contextmanager
def in_words(url: str) -> Iterator[None]:
    """Raise a `ServiceError` with words for what the database raises inside the ``with`` block."""
    try:
        yield
    except DBAPIError as error:
        raise ServiceError(database_words(error, url)) from error


def database_words(error: DBAPIError, url: str) -> str:
    """Return what an error of the database means, as "fault: advice". Of the URL it shows user, host, port and name, never the password."""
    parsed = make_url(url)
    known = _SQLITE if parsed.get_backend_name() == "sqlite" else _POSTGRES
    message = str(error.orig)
    for pattern, fault, advice in known:
        if re.search(pattern, message):
            return f"{fault.format(**_parts(parsed))}: {advice}"
    return f"the database does not work ({type(error.orig).__name__}): check {_URL}, and the log of the server"


def _parts(url: URL) -> dict[str, str]:
    """Return the names of a URL that its messages use."""
    host = url.host or str(url.query.get("host", "this machine"))
    where = f"{host}:{url.port or url.query.get('port', 5432)}"
    return {
        "host": host,
        "where": where,
        "server": f"the database server {where}",
        "user": url.username or "that this process has",
        "name": url.database or "of the user's name",
    }

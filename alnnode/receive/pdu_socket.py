"""The socket of an accepted association: reads complete PDUs within a time limit, and sleeps until there is data.

pynetdicom 3.0.4 reads 4096 bytes at a time and polls every millisecond. `PduSocket` overrides private parts of pynetdicom;
`tests/unit/receive/test_transport.py` fails when a new version changes them.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import TYPE_CHECKING

from pynetdicom.transport import AssociationSocket

from alnnode.receive.dimse_messages import WAIT

if TYPE_CHECKING:
    from pynetdicom.association import Association

SILENCE = 60.0  # seconds, where the settings of pynetdicom's AE have no timeout
PDU_HEAD = 6  # bytes: type, reserved, length (PS3.8 9.3)


class PduSocket(AssociationSocket):
    """Reads PDUs of at most ``limit`` bytes, and waits without polling."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limit: int) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limit = limit
        self._until: float | None = None  # monotonic time at which the PDU under way must be complete
        self._pdus = 0
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def wake(self) -> None:
        """End the present or the next wait of `ready` immediately."""
        try:
            self._wake_write.send(b"\0")
        except OSError:  # the buffer is full, which wakes the reader too; or the socket is closed, and nobody waits
            return

    @property
    def ready(self) -> bool:
        """Wait for data. Return False after `wake`, after `WAIT` seconds, or immediately while events are in the queue."""
        if self.socket is None or not self._is_connected:
            time.sleep(0.01)  # the association is ending; its thread decides when
            return False
        try:
            if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
                return True  # decrypted data, which the descriptor does not show
            poll = select.poll()  # select() fails from descriptor 1024 on
            poll.register(self.socket, select.POLLIN)
            poll.register(self._wake_read, select.POLLIN)
            # The state machine handles one event between two calls, and a connection starts with two: itself and its request.
            wait = WAIT if self.event_queue.empty() else 0
            found = {descriptor for descriptor, _ in poll.poll(wait * 1000)}
            if self._wake_read.fileno() in found:
                self._wake_read.recv(4096)
            return self.socket.fileno() in found
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes`` into one buffer; fewer when the peer closes the connection.

        pynetdicom reads the head of a PDU and then its body. One time limit holds for both, however small the pieces are in which
        they arrive.
        """
        if nr_bytes > self._limit:
            raise OSError("a PDU is longer than the negotiated maximum")
        if self.socket is None:
            raise OSError("the connection is closed")
        if nr_bytes == PDU_HEAD and self._until is None:
            allowed = self.assoc.acse_timeout if self._pdus == 0 else self.assoc.network_timeout
            self._until = time.monotonic() + (allowed or SILENCE)
        buffer = bytearray(nr_bytes)
        view, filled = memoryview(buffer), 0
        while filled < nr_bytes:
            if self._until is not None:
                self.socket.settimeout(max(0.001, self._until - time.monotonic()))
            count = self.socket.recv_into(view[filled:])
            if not count:
                break
            filled += count
        if nr_bytes != PDU_HEAD or buffer[2:] == bytes(4):
            self._until, self._pdus = None, self._pdus + 1
            self.socket.settimeout(self.assoc.network_timeout)
        view.release()
        del buffer[filled:]
        return buffer

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._wake_read.close()
        self._wake_write.close()

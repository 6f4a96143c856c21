"""What runs in the supervisor beside its processes: the sweep, the notifier, the audit trail and its sender."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from alnnode.audit.sender import AuditSender
from alnnode.audit.trail import Trail
from alnnode.errors import ServiceError
from alnnode.notify.notifier import NotifierThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from alnnode.settings import Settings

    Sweeping = Callable[[Settings, Trail, threading.Event], None]

STOP_LIMIT = 6.0  # seconds for the sweep to end its round


class Background:
    """Started and stopped by the supervisor, and made again with other settings.

    Attributes:
        trail: the audit trail.
    """

    def __init__(self, settings: Settings, sweep: Sweeping | None) -> None:
        self._sweep = sweep
        self._open(settings)

    def _open(self, settings: Settings) -> None:
        self.trail, self._sender, self._stop = Trail(settings), AuditSender(settings), threading.Event()
        self._thread: threading.Thread | None = None
        self._notifier: NotifierThread | None = None
        if self._sweep is not None:
            arguments = (settings, self.trail, self._stop)
            self._thread = threading.Thread(target=self._sweep, args=arguments, name="sweep", daemon=True)
            self._notifier = NotifierThread(settings)

    def start(self) -> None:
        """Start the sweep and the notifier, if this supervisor has them."""
        if self._thread is not None:
            self._thread.start()
        if self._notifier is not None:
            self._notifier.start()

    def check(self) -> None:
        """Check that the sweep runs.

        Raises:
            ServiceError: it has ended.
        """
        if self._thread is not None and not self._thread.is_alive():
            raise ServiceError(
                "the sweep ended unexpectedly, and no series can be completed without it; the log lines above give the reason"
            )

    def restart(self, settings: Settings) -> None:
        """Go on with other settings."""
        self.stop_sweep()
        self.close()
        self._open(settings)
        self.start()

    def stop_sweep(self) -> None:
        """Let the sweep and the notifier end their round."""
        self._stop.set()
        if self._notifier is not None:
            self._notifier.close()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(STOP_LIMIT)

    def close(self) -> None:
        """Write the waiting audit messages."""
        self.trail.close()
        self._sender.close()

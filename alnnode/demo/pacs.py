"""A small stand-in PACS in a process of its own. It stores each object that it receives in a file.

Run it as ``python -m alnnode.demo.pacs FOLDER``; the first line on standard output is its port. It listens on loopback only.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from pynetdicom.events import Event

AE_TITLE = "DEMO_PACS"
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700


def _store(event: Event, folder: Path) -> int:
    """Store the object. A duplicate is stored as a further file, so that the demonstration finds duplicate results."""
    data = event.encoded_dataset()
    name = hashlib.sha256(str(event.file_meta.MediaStorageSOPInstanceUID).encode()).hexdigest()[:24]
    copies = len(list(folder.glob(f"{name}*.dcm")))
    try:
        (folder / f"{name}-{copies + 1}.part").write_bytes(data)
        (folder / f"{name}-{copies + 1}.part").rename(folder / f"{name}-{copies + 1}.dcm")
    except OSError:
        return OUT_OF_RESOURCES
    return SUCCESS


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    entity = AE(ae_title=AE_TITLE)
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, _store, [folder])])
    if server is None:
        raise SystemExit("the stand-in PACS cannot listen on loopback")
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()

"""Send notifications until killed: ``python notifier_process.py CONFIG``, with a lease of one second."""

import sys
import time
from datetime import timedelta
from pathlib import Path

from alnnode.db import engine
from alnnode.notify.notifier import Notifier
from alnnode.settings import load

if __name__ == "__main__":
    settings = load(Path(sys.argv[1]))
    notifier = Notifier(settings, engine.create(settings.database_url, 1), timedelta(seconds=1))
    while True:
        notifier.once()
        time.sleep(0.02)

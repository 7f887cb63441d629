"""The plugins' end: a plugin whose engine has gone, however it went, must not stay."""

import os
import threading
import time

LOOK_SECONDS = 2


def end_with_parent() -> None:
    """End this process soon after the process that started it; returns at once."""

    def watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(0)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()

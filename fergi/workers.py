"""What worker processes share."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this worker process when the process that started it is gone, even if that one was killed."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

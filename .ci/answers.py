"""Exit code 0 when a URL answers within a few seconds.  Runs in the bare virtual environment."""

import multiprocessing
import sys
import urllib.request


def fetch(url: str) -> None:
    """Ends the process with exit code 1 when the URL cannot be opened."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            pass
    except OSError:
        sys.exit(1)


if __name__ == "__main__":
    # Looking a name up has no timeout of its own, hence another process that can be ended.
    process = multiprocessing.Process(target=fetch, args=(sys.argv[1],))
    process.start()
    process.join(10)
    process.kill()
    process.join()
    sys.exit(process.exitcode != 0)

"""`ckbd` with a log of the files that it opens and the programs that it starts: fuzz/pictures.py runs this.

    python fuzz/watched.py LOG FOLDER GIB ARGUMENTS...

A line of the log is JSON: what, seconds, peak memory in KiB, bytes written to stderr, then a file's name below FOLDER
or the event. It is written at once, so that a process which dies leaves it. More than GIB of address space is denied.
"""

import atexit
import json
import os
import resource
import sys
import time
from pathlib import Path

PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "os.forkpty")
PROGRAMS += ("pty.spawn", "os.startfile", "webbrowser.open")


def watch(log, folder):
    """Audits this process from now on; what is logged goes to a file, opened here."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = set()

    def note(what, value):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = [what, time.monotonic(), peak, os.fstat(2).st_size, value]
        os.write(out, json.dumps(line).encode() + b"\n")

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if path.startswith(folder + os.sep) and path not in seen:
                seen.add(path)
                note("file", path[len(folder) + 1 :])
        elif event in PROGRAMS:
            note("program", f"{event} {arguments[:2]!r}"[:300])

    sys.addaudithook(hook)
    atexit.register(note, "end", "")


def main():
    log, folder, gib, *arguments = sys.argv[1:]
    root = str(Path(__file__).resolve().parent.parent)
    sys.path[0] = root
    resource.setrlimit(resource.RLIMIT_AS, (int(float(gib) * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch(log, folder)
    from ckbd import cli

    sys.exit(cli.main(arguments))


if __name__ == "__main__":
    main()

"""Forked processes."""

import os
import signal
import traceback

import pytest

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def in_child(work, seconds=60):
    """Runs work() in a forked process, which must end well, and in time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"the process ended with {status}, a signal if below 0"

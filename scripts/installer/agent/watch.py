"""The pod's long life: readiness follows the snapshotter.

Run as a script (``python -I -S watch.py SOCKET PROGRAM READY-FILE [SECONDS COMMAND ...]``) in a process that
imports nothing heavy: a DaemonSet's memory is paid on every node. Ends with 1 when the snapshotter stays
away; the kubelet then starts the installer again, which finds out and reports why. COMMAND is run every
SECONDS until it succeeds; then this process becomes the installer again, which reports that. At the pod's end
it becomes the agent once more, which finds out whether SOCI has to leave the node. Without arguments it only
waits for the pod's end.
"""

import os
import signal
import socket
import sys
import time

PERIOD_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
# Blocked from before one program becomes the next until that one handles it: the first process of a container
# ignores what it does not handle, and the pod's end would go unnoticed.
END_SIGNAL = signal.SIGTERM
INSTALLER = [sys.executable, "-B", "-m", "agent"]


def accepts(path):
    """Whether something listens on the unix socket ``path``."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect(path)
    except OSError:
        return False
    else:
        return True
    finally:
        client.close()


def daemon_pid(program, last):
    """The process id of ``program`` (the end of its path), 0 when it does not run; tries ``last`` first.

    With socket activation systemd accepts for a daemon that is away: an open socket alone proves nothing.
    """
    for pid in [str(last)] if last else []:
        if _runs(pid, program):
            return last
    for pid in os.listdir("/proc"):
        if pid.isdigit() and _runs(pid, program):
            return int(pid)
    return 0


def _runs(pid, program):
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)").endswith(program)
    except OSError:
        return False


class Errand:
    """A command that is run every so often until it succeeds, beside the watching."""

    def __init__(self, seconds, command):
        self.seconds, self.command = seconds, command
        self.pid, self.due = 0, time.monotonic()

    def is_done(self):
        """Start the command when it is due; whether it has just succeeded."""
        if self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, self.due = 0, time.monotonic() + self.seconds
                return status == 0
        elif time.monotonic() >= self.due:
            self.pid = os.posix_spawnp(self.command[0], self.command, os.environ)
        return False


def watch(socket_path, program, ready_file, errand):
    """Keep ``ready_file`` there exactly while the snapshotter serves."""
    pid, away_since = 0, 0.0
    while True:
        pid = daemon_pid(program, pid)
        if pid and accepts(socket_path):
            away_since = 0.0
            if not os.path.exists(ready_file):
                with open(ready_file, "w"):
                    pass
        else:
            if os.path.exists(ready_file):
                os.unlink(ready_file)
            now = time.monotonic()
            away_since = away_since or now
            if now - away_since > PATIENCE_SECONDS:
                return 1
        if errand and errand.is_done():
            signal.pthread_sigmask(signal.SIG_BLOCK, [END_SIGNAL])
            os.execv(INSTALLER[0], INSTALLER)
        time.sleep(PERIOD_SECONDS)


def handle_end(handler):
    """Have ``handler`` called at the pod's end, also when that came before."""
    signal.signal(END_SIGNAL, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [END_SIGNAL])


def leave(number, frame):
    """Become the agent, in the program's directory, which is this process's own."""
    os.execv(INSTALLER[0], [*INSTALLER, "leave"])


def rest():
    """Wait for the pod's end: nothing of ours is on the node."""
    handle_end(lambda number, frame: sys.exit(0))
    while True:
        signal.pause()


if __name__ == "__main__":
    if not sys.argv[1:]:
        rest()
    handle_end(leave)
    seconds, command = sys.argv[4:5], sys.argv[5:]
    sys.exit(watch(*sys.argv[1:4], Errand(float(seconds[0]), command) if command else None))

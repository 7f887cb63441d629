"""The pod's long life: readiness follows SOCI's daemon, and whatever changes calls the installer back.

Run as a script, in a process that imports nothing heavy: a DaemonSet's memory is paid on every node.

    python -I -S watch.py READY-FILE SOCKET PROGRAM DAEMON-PID CONTAINERD-PID KUBELET-PID
                          [FILE=FINGERPRINT ...] [--every SECONDS COUNT WORD ...] ...

It becomes the installer again, which finds out what is the matter and tells, when the daemon was started
anew or stays away, containerd or the kubelet was started anew, a file was changed, or one of the commands,
run every SECONDS, succeeds (it has COUNT words). READY-FILE is there while the daemon serves; an empty
READY-FILE or PROGRAM, and the process 0, stand for nothing. At the pod's end it becomes the agent once more,
which finds out whether SOCI has to leave the node. Without arguments it only waits for the pod's end.
"""

import os
import signal
import socket
import sys
import time

PERIOD_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
# It stays blocked across exec until the new program handles it: the first process of a container ignores a
# signal that it does not handle, so the end of the pod would be lost.
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


def fingerprint(path):
    """What every change of a file or directory changes."""
    try:
        found = os.stat(path)
    except OSError:
        return "absent"
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


class Errand:
    """A command that is run every so often until it succeeds, beside the watching."""

    def __init__(self, seconds, command):
        self.seconds, self.command = seconds, command
        self.pid, self.due = 0, time.monotonic() + seconds

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


class Daemon:
    """The process of SOCI's daemon, and the file that says whether it serves."""

    def __init__(self, ready_file, socket_path, program, pid):
        self.ready_file, self.socket_path, self.program = ready_file, socket_path, program
        self.pid, self.now, self.away_since = pid, pid, 0.0

    def has_changed(self):
        """Whether it was started anew and serves, or stays away."""
        if not self.program:
            return False
        self.now = daemon_pid(self.program, self.now)
        serves = bool(self.now) and accepts(self.socket_path)
        self._show(serves)
        if serves:
            self.away_since = 0.0
            self.pid = self.pid or self.now
            return self.now != self.pid
        self.away_since = self.away_since or time.monotonic()
        return time.monotonic() - self.away_since > PATIENCE_SECONDS

    def _show(self, serves):
        if not self.ready_file or os.path.exists(self.ready_file) == serves:
            return
        if serves:
            with open(self.ready_file, "w"):
                pass
        else:
            os.unlink(self.ready_file)


def is_replaced(kubelet):
    """Whether another kubelet runs than this process: in between nobody can say with which flags."""
    if not kubelet or os.path.exists(f"/proc/{kubelet}"):
        return False
    return any(_name(pid) == "kubelet" for pid in os.listdir("/proc") if pid.isdigit())


def _name(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def watch(daemon, containerd, kubelet, files, errands):
    """Return once the installer has something to find out."""
    changed = {}
    while True:
        if daemon.has_changed() or (containerd and not os.path.exists(f"/proc/{containerd}")):
            return
        if is_replaced(kubelet):
            return
        now = {path: fingerprint(path) for path in files}
        if now != files and now == changed:  # nobody is still writing
            return
        changed = now
        if any(errand.is_done() for errand in errands):
            return
        time.sleep(PERIOD_SECONDS)


def parse(words):
    """The daemon, the processes of containerd and the kubelet, the files' fingerprints and the errands, of a
    command line."""
    ready_file, socket_path, program, daemon, containerd, kubelet, *rest = words
    files, errands = {}, []
    while rest:
        word, *rest = rest
        if word == "--every":
            seconds, count, *rest = rest
            errands.append(Errand(float(seconds), rest[: int(count)]))
            rest = rest[int(count) :]
        else:
            path, _, known = word.rpartition("=")
            files[path] = known
    watched = Daemon(ready_file, socket_path, program, int(daemon))
    return watched, int(containerd), int(kubelet), files, errands


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
    watch(*parse(sys.argv[1:]))
    signal.pthread_sigmask(signal.SIG_BLOCK, [END_SIGNAL])
    os.execv(INSTALLER[0], [*INSTALLER, "again"])

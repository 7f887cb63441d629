"""Starts agents and host scripts, each as a process group of its own, under a preloaded fault_points library.

One line of JSON in is one job; one line out says how it ended, when every process of it is gone, orphans too.
Jobs are forked from this process, which has the agent's modules in memory already.
"""

import ctypes
import hashlib
import io
import json
import mmap
import os
import struct
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from agent import install, plan, release, slots, transaction, uninstall
from agent.errors import InstallError
from agent.host import Result

from tests.fakes.node import INSTALLER, FakeNode, run_below, run_here
from tests.fakes.script_node import FAKES
from tests.fakes.settings import agent_settings

PR_SET_CHILD_SUBREAPER = 36
AGENT_GROUP_OFFSET = 4 * 4  # in struct shared of fault_points.c
TIME_IS_SHORTER = 100


class LiveNode(FakeNode):
    """A node whose looks are answered from its files, and whose host script really runs."""

    def __init__(self, root: Path, fake: Path) -> None:
        super().__init__(root)
        self.fake = fake
        if (fake / "ctr.json").exists():
            self.ctr.answers = json.loads((fake / "ctr.json").read_text())
        self.answers[str(FAKES / "containerd")] = self.answers["/usr/bin/containerd"]
        self.answers["systemd-run"] = self._start
        self.answers["sh"] = self._shell
        self.answers["env"] = self._ctr
        self.answers["timeout"] = self._limited

    def _systemctl(self, command: Sequence[str], text: str) -> Result:
        if command[1] == "is-active":
            return Result(0, "active" if self._is_running(command[2]) else "inactive", "")
        programs = {slot.unit: self._program(slot) for slot in (slots.FIRST, slots.SECOND)}
        self.running = {unit: program for unit, program in programs.items() if program}
        self.unit = slots.FIRST.unit_path if self.exists(slots.FIRST.unit_path) else ""
        answer = super()._systemctl(command, text)
        return Result(0, answer.output.replace("/usr/bin/containerd", str(FAKES / "containerd")), "")

    def _program(self, slot: slots.Slot) -> str:
        unit = self.fake / f"loaded-unit{slot.suffix}"
        lines = unit.read_text().splitlines() if unit.exists() else []
        starts = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=/")]
        return starts[-1].split()[0] if starts else ""

    def _is_running(self, unit: str) -> bool:
        try:
            process = (self.fake / f"process-{unit}").read_text().strip()
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return state != "Z"

    def _start(self, command: Sequence[str], text: str) -> Result:
        unit = next(word.removeprefix("--unit=") for word in command if word.startswith("--unit="))
        program, verb, directory = command[-3:]
        started = subprocess.Popen(
            ["sh", str(self.path(program)), verb, str(self.path(directory))],
            env={**os.environ, "FAULT_ROLE": "script"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        (self.fake / f"process-{unit}.service").write_text(str(started.pid))
        return Result(0, "", "")

    def _shell(self, command: Sequence[str], text: str) -> Result:
        words = [
            "sh",
            *(str(self.path(word)) if word == transaction.SCRIPT else word for word in command[1:]),
        ]
        done = subprocess.run(words, check=False, input=text, capture_output=True, text=True)
        return Result(done.returncode, done.stdout, done.stderr)

    def _ctr(self, command: Sequence[str], text: str) -> Result:
        words = command[command.index("ctr") :]
        if {"prepare", "rm"}.isdisjoint(words):
            return self.ctr(command, text)
        return run_here([str(FAKES / words[0]), *words[1:]])

    def _limited(self, command: Sequence[str], text: str) -> Result:
        """What a time limit is set for; the limit itself would make it a process group of its own."""
        return run_below(self.root, command[4:])


def archive(version: str) -> bytes:
    """A release's archive, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for program in release.PROGRAMS:
            content = f"#!/bin/sh\n# {program} {version}\n".encode() * 100
            member = tarfile.TarInfo(program)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {version: archive(version) for version in ("0.15.0", "0.16.1")}


def machine() -> LiveNode:
    return LiveNode(Path(os.environ["ROOT"]), Path(os.environ["FAKE"]))


def sleep(seconds: float) -> None:
    time.sleep(seconds / TIME_IS_SHORTER)


def run_uninstall() -> dict:
    """One run of the agent's flow that takes SOCI off the node."""
    script = transaction.host_script(INSTALLER)
    try:
        changed = uninstall.uninstall(machine(), script, False, lambda: None, sleep)
    except InstallError as error:
        return {"outcome": "failed", "step": error.step, "cause": error.cause}
    return {"outcome": "done", "changed": changed}


def run_agent(job: dict) -> dict:
    """One run of the agent's flow, with the download answered from memory."""
    version = job["version"]
    settings = agent_settings(
        version=version,
        sha256={"amd64": hashlib.sha256(ARCHIVES[version]).hexdigest()},
        existing_nodes="migrate",
        upgrade_policy="side-by-side",
    )
    task = plan.Task(
        machine(),
        settings,
        INSTALLER,
        "x86_64",
        lambda: plan.Registration(True, "soci-system"),
        sleep=sleep,
    )
    try:
        with (
            mock.patch.object(transaction, "new_id", return_value=job["id"]),
            mock.patch.object(
                release, "download", lambda host, url, target, *of, **trust: target.write(ARCHIVES[version])
            ),
        ):
            done = install.install(task, lambda users: None)
    except InstallError as error:
        return {"outcome": "failed", "step": error.step, "cause": error.cause}
    return {"outcome": "done", "changed": done.changed, "restarts": done.containerd_restarts}


def child(job: dict, result: int) -> None:
    """The forked process of a job; does not return."""
    os.setsid()
    if job["program"] == "shell":
        os.environ["FAULT_ROLE"] = "script"
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (result, 1), (result, 2)):
            os.dup2(descriptor, target)
        os.execvp("sh", ["sh", *job["arguments"]])
    with open(os.environ["FAULT_STATE"], "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        struct.pack_into("i", shared, AGENT_GROUP_OFFSET, os.getpgrp())
    outcome = run_agent(job) if job["program"] == "agent" else run_uninstall()
    os.write(result, json.dumps(outcome).encode())
    os._exit(0)


def run(job: dict) -> dict:
    """Fork the job and wait until all of its processes have ended."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, False)
    process = os.fork()
    if process == 0:
        try:
            child(job, writer)
        except BaseException:  # noqa: BLE001 - what the pod's log would show
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(70)
    os.close(writer)
    with open(reader, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    status = -1
    while True:
        try:
            ended, code = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if ended == process:
            status = os.waitstatus_to_exitcode(code)
    return {"status": status, "output": output}


def main() -> None:
    """Serve jobs until the input ends."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

"""A node's credentials: the helper's own script in a folder, plugins beside it, and what it may read."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fakes.node import INSTALLER

HELPER = "docker-credential-soci-cluster"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
V1 = "credentialprovider.kubelet.k8s.io/v1"
RESPONSE = (
    '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",'
    '"cacheKeyType":"Registry","cacheDuration":"%s","auth":{"%s":{"username":"AWS","password":"%s"}}}'
)
# What the helper runs on a node; of these busybox has all, and no flock.
APPLETS = ("awk", "cat", "grep", "head", "id", "kill", "mkdir", "mv", "rm", "sed", "sleep", "tr")


SHELLS = {
    "dash": (("dash",), "mawk"),
    "busybox": (("busybox", "sh"), "busybox"),
    "bash": (("bash", "--posix"), "gawk"),
}


def response(secret: str, key: str = ECR, keep: str = "6h0m0s") -> str:
    """An answer as ecr-credential-provider prints it."""
    return RESPONSE % (keep, key, secret)


def helper_clock() -> str:
    return Path("/proc/uptime").read_text().split()[0]


class CredentialNode:
    """The helper as the daemon calls it. ``shell`` runs it; ``awk`` names the program that is its awk."""

    def __init__(self, path: Path, shell: Sequence[str] = ("dash",), awk: str = "mawk") -> None:
        self.path = path
        self.shell = [shutil.which(shell[0]) or "", *shell[1:]]
        self.home = path / "home"
        self.home.mkdir(parents=True)
        self.programs = path / "programs"
        self.programs.mkdir()
        self.log = path / "asked"
        self.log.mkdir()
        self.lines: list[str] = []
        is_busybox = "busybox" in shell
        tools = path / "tools"
        tools.mkdir()
        for name in APPLETS if is_busybox else ("awk",):
            of_busybox = is_busybox or awk == "busybox"
            (tools / name).symlink_to(shutil.which("busybox" if of_busybox else awk) or "")
        # Plugins are sh scripts, which need more than the helper.
        self.search_path = f"{self.programs}:{tools}" + ("" if is_busybox else f":{os.defpath}")
        text = (INSTALLER / HELPER).read_text()
        assert "\nSEARCH_PATH=" in text
        text = text.replace("\nSEARCH_PATH=", f"\nSEARCH_PATH={self.search_path} # ")
        self.helper = path / HELPER
        self.helper.write_text(text)
        self.helper.chmod(0o755)

    @classmethod
    def under(cls, name: str, path: Path) -> "CredentialNode":
        """A node with one of SHELLS; where this machine lacks it, the test is skipped and says so."""
        shell, awk = SHELLS[name]
        for program in (shell[0], awk):
            if not shutil.which(program):
                pytest.skip(f"there is no {program} here")
        return cls(path, shell, awk)

    def limit(self, **seconds: int) -> None:
        """The helper with other times, by their names in it."""
        text = self.helper.read_text()
        for name, value in seconds.items():
            text, count = re.subn(rf"^{name}=\d+ ", f"{name}={value} ", text, flags=re.MULTILINE)
            assert count == 1, name
        self.helper.write_text(text)

    # What there is on the node

    def provide(
        self,
        script: str,
        *,
        name: str = "ecr-credential-provider",
        match: Sequence[str] = ("*.dkr.ecr.*.amazonaws.com",),
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        version: str = V1,
        cache: str = "",
    ) -> Path:
        """One more plugin of the kubelet; ``script`` prints its answer. Its requests are counted."""
        program = self.programs / name
        program.write_text(
            f"#!/bin/sh\nPATH={os.defpath}\nread -r request\n"
            f'printf \'%s\\n\' "$request" "$*" >"$(mktemp {self.log}/XXXXXXXX)"\n{script}\n'
        )
        program.chmod(0o755)
        self.lines += [f"provider {name}", f"executable {program}", f"apiVersion {version}"]
        self.lines += [f"cache {cache}"] if cache else []
        self.lines += [f"match {pattern}" for pattern in match]
        self.lines += [f"argument {word}" for word in arguments]
        self.lines += [f"environment {key}={value}" for key, value in (environment or {}).items()]
        self.write_list()
        return program

    def answer(self, text: str, **provider: object) -> Path:
        """One more plugin, that prints this text."""
        place = self.path / f"answer-{len(self.lines)}"
        place.write_text(text)
        return self.provide(f"cat {place}", **provider)  # ty: ignore[invalid-argument-type]

    def write_list(self) -> None:
        (self.path / "providers").write_text("".join(f"{line}\n" for line in [*self.lines, "end"]))

    def docker(self, text: str, path: str = "home/.docker/config.json") -> Path:
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def docker_helper(self, name: str, script: str) -> None:
        program = self.programs / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\nPATH={os.defpath}\nread -r asked\n{script}\n")
        program.chmod(0o755)

    def pull_secret(self, host: str, text: str, seconds: float = 0) -> None:
        """As the process that keeps them writes them, which showed life so many seconds ago."""
        folder = self.path / "root/run/soci-cluster/pull-secrets"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / host).write_text(text)
        alive = int(time.clock_gettime(time.CLOCK_BOOTTIME) - seconds) * 100
        folder.with_name("pull-secrets.alive").write_text(f"{alive}\n")

    @property
    def answers(self) -> Path:
        """The helper's cache."""
        return self.path / "root/run/soci-cluster/credentials"

    def kept_seconds(self, host: str = ECR) -> float:
        """For how long the answer is kept, while only one has been given it."""
        until = (self.answers / host).read_text().split()[0]
        return (int(until) - int((self.answers / f".given-{host}").read_text())) / 100

    def let_pass(self, seconds: int) -> None:
        """What is kept has become older by so many seconds."""
        for path in self.answers.iterdir():
            first, *rest = path.read_text().splitlines() or [""]
            words = first.split()
            times = [str(int(word) - seconds * 100) if word.isdigit() else word for word in words]
            path.write_text("".join(f"{line}\n" for line in [" ".join(times), *rest] if words))

    def requests(self) -> list[str]:
        """What the plugins were asked: the request, then the arguments, a line each."""
        return [path.read_text() for path in sorted(self.log.iterdir())]

    # What the daemon does

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.path}:{self.search_path}",
            "HOME": str(self.home),
            "SOCI_CLUSTER_ROOT": str(self.path / "root"),
            "DOCKER_CONFIG": str(self.path),
            **more,
        }

    def start(self, host: str, verb: str = "get", **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*self.shell, str(self.helper), verb],
            env=self.environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # not every verb reads it
            process.stdin.write(host.encode())
            process.stdin.close()
        process.stdin = None
        return process

    def run(self, host: str, verb: str = "get", **environment: str) -> tuple[int, str, str]:
        """Status, standard output and standard error. Nobody waits longer than 20 s.

        Who asks next asks later by the helper's clock: one that began in the same hundredth of a second has
        waited with this one.
        """
        process = self.start(host, verb, **environment)
        try:
            output, error = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        ended = helper_clock()
        while helper_clock() == ended:
            time.sleep(0.001)
        return process.returncode, output.decode(errors="surrogateescape"), error.decode(errors="replace")

    def source(self, host: str) -> list[str]:
        return self.run(host, "source")[1].splitlines()

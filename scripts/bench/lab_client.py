"""What the benchmarks ask of the embedded lab and of its Kubernetes API."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "scripts" / "lab" / "lab"
LAB_DIRECTORY = Path(os.environ.get("LAB_DIR", REPOSITORY / ".lab"))
NAMESPACE, INSTALLER_NAMESPACE = "default", "soci-system"  # of samples, and of the `local` stack

sys.path.insert(0, str(REPOSITORY))

from components.doctor import Kubectl  # noqa: E402 (found through the path above)


def lab(*arguments: str) -> None:
    """Run a lab command and let the user see what it says; raise CalledProcessError when it fails."""
    subprocess.run([LAB, *arguments], check=True)


def on_node(node: str, script: str) -> str:
    """Run a shell script on a lab node as root and return its output; raise RuntimeError when it fails."""
    # Not by `lab exec`: an interpreter for each question costs a hundred times what the question does.
    try:
        command = _of_lab("nodes").Node.load(LAB_DIRECTORY.absolute(), node).command(["sh", "-c", script])
    except _of_lab("settings").LabError as error:
        raise RuntimeError(f"{node}: {script!r} was not run: {error}") from error
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{node}: {script!r} exited {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def kubectl() -> Kubectl:
    """Return kubectl, at the lab's cluster."""
    return Kubectl((str(LAB), "kubectl"))


def kubernetes_api():
    """Return the core API of the lab's cluster (kubernetes.client.CoreV1Api)."""
    from kubernetes import client, config

    config.load_kube_config(str(LAB_DIRECTORY / "kubeconfig"))
    return client.CoreV1Api()


def engine_environment() -> dict[str, str]:
    """Return the environment in which `pulumi` runs on the lab (see scripts/lab/engine/engine.py)."""
    return {**os.environ, **_of_lab("engine").prepare(LAB_DIRECTORY / "pulumi")}


def stack_environment() -> dict[str, str]:
    """Return that of the lab's stack, with the repository's settings (scripts/lab/engine/local_stack.py)."""
    return _of_lab("local_stack").environment(LAB_DIRECTORY, fresh=True)


def fetch_provider() -> str:
    """Get Pulumi's kubernetes plugin where it can be had; return in words which one the lab will use."""
    return _of_lab("engine").fetch_plugin("kubernetes")


@functools.cache
def _of_lab(name: str):
    for folder in ("lab", "lab/engine"):
        sys.path.insert(0, str(REPOSITORY / "scripts" / folder))
    return importlib.import_module(name)

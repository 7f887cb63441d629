"""soci-doctor over a fleet: what it prints, and its exit status. kubectl is a script here."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components import doctor, names

REPOSITORY = Path(__file__).resolve().parents[2]
KUBECTL = """#!{python}
import json, sys
cluster = json.load(open("{cluster}"))
words = [word for word in sys.argv[1:] if not word.startswith("--context=")]
open("{calls}", "a").write(json.dumps(sys.argv[1:]) + "\\n")
if words[0] == "get" and words[1] == "pods":
    print(json.dumps({{"items": cluster["pods"]}}))
elif words[0] == "get":
    if words[2] not in cluster["workloads"]:
        sys.exit('Error from server (NotFound): pods "' + words[2] + '" not found')
    print(json.dumps(cluster["workloads"][words[2]]))
elif words[0] == "exec":
    answer = cluster["answers"][words[3]]
    if isinstance(answer, str):
        sys.stderr.write(answer + "\\ncommand terminated with exit code 1\\n")
        sys.exit(1)
    print(json.dumps(answer))
"""


class Cluster:
    """A cluster as kubectl shows it."""

    def __init__(self, folder: Path) -> None:
        self.state: dict[str, Any] = {"pods": [], "workloads": {}, "answers": {}}
        self.file, self.calls = folder / "cluster.json", folder / "calls"
        self.program = folder / "kubectl"
        self.program.write_text(KUBECTL.format(python=sys.executable, cluster=self.file, calls=self.calls))
        self.program.chmod(0o755)

    def add(self, node: str, *findings: dict[str, str], ready: bool = True, answer: Any = None) -> None:
        """A node with the installer's pod, and what the agent on it says."""
        pod = f"soci-installer-{node}"
        status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
        if not ready:
            status["conditions"][0]["reason"] = "ContainersNotReady"
            waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
            status["containerStatuses"] = [{"state": waiting}]
        metadata = {"name": pod, "namespace": "soci-system"}
        self.state["pods"].append({"metadata": metadata, "spec": {"nodeName": node}, "status": status})
        self.state["answers"][pod] = answer or report(node, *findings)

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        """Exit status, what is printed, and what is said of errors."""
        self.file.write_text(json.dumps(self.state))
        status = doctor.main(arguments)
        return (status, *capsys.readouterr())


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Cluster(tmp_path)


def finding(name: str, severity: str, subject: str = "node") -> dict[str, str]:
    return {
        "id": name,
        "severity": severity,
        "subject": subject,
        "cause": f"the cause of {name}",
        "remedy": f"what ends {name}",
    }


def image(name: str, served: str = "lazy") -> dict[str, Any]:
    is_lazy = served == "lazy"
    return {
        "image": name,
        "names": [name],
        "served": served,
        "layers": 7,
        "lazyLayers": 6 if is_lazy else 0,
        "bytes": 288 << 20,
        "lazyBytes": 287 << 20 if is_lazy else 0,
        "localBytes": 100 << 20 if is_lazy else 0,
        "wholeBytes": 1 << 20 if is_lazy else 288 << 20,
        "movedBytes": 101 << 20 if is_lazy else 288 << 20,
        "inBackground": is_lazy,
        "why": "" if is_lazy else "no-index",
    }


CREDENTIALS = [
    {"registry": "registry.example", "source": "provider ecr-credential-provider"},
    {"registry": "docker.io", "source": "none"},
]


def report(node: str, *findings: dict[str, str]) -> dict[str, Any]:
    severities = [entry["severity"] for entry in findings]
    return {
        "node": node,
        "verdict": min([*severities, "good"], key=["error", "warning", "good"].index),
        "mode": "lazy",
        "slot": "soci",
        "versions": {"soci": "0.16.1", "containerd": "2.3.7", "kubelet": "1.34.4", "kernel": "6.1"},
        "daemon": {
            "unit": "soci-snapshotter.service",
            "state": "active",
            "memoryBytes": 41 << 20,
            "oomScoreAdj": -999,
            "uptimeSeconds": 7200,
            "backgroundFetch": "on, progress not known",
        },
        "hardware": {
            "cores": 2,
            "memoryBytes": 4 << 30,
            "inWords": "2 cores, 4.0 GiB of memory",
            "chosen": "parallel pulls: as it must",
        },
        "mounts": {"lazyLayers": 6, "containers": 2, "dead": 0},
        "images": [image("registry.example/sample:1"), image("docker.io/library/nginx:latest", "whole")],
        "credentials": CREDENTIALS,
        "drift": [],
        "findings": list(findings),
        "notKnown": [],
    }


# The exit status


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ([], 0),
        ([finding("drift", "warning")], 1),
        ([finding("no-fuse", "error"), finding("drift", "warning")], 2),
    ],
)
def test_the_exit_status_is_that_of_the_worst_node(cluster, capsys, findings, status):
    cluster.add("node1")
    cluster.add("node2", *findings)
    assert cluster.run(capsys)[0] == status
    assert cluster.run(capsys, "--output", "json")[0] == status


def test_a_node_that_cannot_be_looked_at_hides_no_other(cluster, capsys):
    cluster.add("node1", finding("no-fuse", "error"))
    cluster.add("node2", answer="error: unable to upgrade connection: container not found", ready=False)
    status, output, _ = cluster.run(capsys)
    assert status == 3
    assert "no-fuse" in output
    assert re.search(r"node2 +unknown", output)
    words = " ".join(output.split())
    assert "soci-installer-node2 is not ready (CrashLoopBackOff)" in words
    assert "container not found" in words
    assert "command terminated" not in words


def test_an_older_installer_is_told_as_one(cluster, capsys):
    said = doctor.LOOK.split("'")[1]
    cluster.add("node1", answer=said)
    status, output, _ = cluster.run(capsys)
    assert status == 3
    assert "this installer is older. Remedy: pulumi up" in output
    assert output.count("Remedy") == 1


def test_the_command_in_the_pod_never_starts_an_installer_that_knows_no_doctor(tmp_path):
    """An agent from before it would take the word for a new start, and install."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__main__.py").write_text("print('installs')")
    done = subprocess.run(
        ["sh", "-c", doctor.LOOK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_a_pod_that_is_not_ready_is_asked_all_the_same(cluster, capsys):
    cluster.add("node1", ready=False)
    status, output, _ = cluster.run(capsys)
    assert status == 1
    assert "installer-not-ready" in output


def test_a_pod_on_its_way_out_is_not_asked(cluster, capsys):
    cluster.add("node1")
    cluster.add("node1", answer="error: it ends")
    cluster.state["pods"][1]["metadata"] |= {"name": "old", "deletionTimestamp": "2026-11-26T00:00:00Z"}
    answers = cluster.state["answers"]
    answers |= {"old": answers["soci-installer-node1"], "soci-installer-node1": report("node1")}
    assert cluster.run(capsys)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no installer's pod is in namespace soci-system. Remedy"),
        (["pod/web"], 'pods "web" not found'),
        (["--kubectl", "/nowhere/kubectl"], "/nowhere/kubectl is not there. Remedy: install kubectl"),
    ],
)
def test_what_cannot_be_asked_at_all_is_an_error_with_its_cause(cluster, capsys, arguments, words):
    status, output, error = cluster.run(capsys, *arguments)
    assert (status, output) == (3, "")
    assert error.startswith("soci-doctor: ")
    assert words in error


def test_a_node_without_the_installer(cluster, capsys):
    cluster.add("node1")
    status, output, _ = cluster.run(capsys, "node9")
    assert status == 3
    assert "no installer's pod of namespace soci-system is on it. Remedy: " in output


def test_all_and_a_node_exclude_each_other(cluster, capsys):
    with pytest.raises(SystemExit):
        cluster.run(capsys, "node1", "--all")


# One node, one pod


def test_of_one_node_each_image_is_shown(cluster, capsys):
    cluster.add("node1")
    cluster.add("node2")
    _, output, _ = cluster.run(capsys, "node1")
    assert "node2" not in output
    assert re.search(
        r"registry.example/sample:1 +lazy +6 of 7 lazy +288 MiB, 287 MiB of it lazy, 100 MiB of that here",
        output,
    )
    assert re.search(r"docker.io/library/nginx:latest +whole +0 of 7 lazy +288 MiB +no-index", output)
    assert "background fetch on, progress not known" in output


def test_of_one_node_it_is_shown_with_which_credentials_registries_are_read(cluster, capsys):
    cluster.add("node1")
    _, output, _ = cluster.run(capsys, "node1")
    assert "credentials for registry.example: provider ecr-credential-provider\n" in output
    assert "credentials for docker.io: none\n" in output


def test_of_one_node_its_hardware_is_shown_and_what_was_made_of_it(cluster, capsys):
    cluster.add("node1")
    _, output, _ = cluster.run(capsys, "node1")
    assert "hardware: 2 cores, 4.0 GiB of memory; parallel pulls: as it must\n" in output


def test_an_installer_from_before_credentials_is_shown_without(cluster, capsys):
    of_older = report("node1")
    del of_older["credentials"]
    cluster.add("node1", answer=of_older)
    status, output, _ = cluster.run(capsys, "node1")
    assert status == 0
    assert "credentials for" not in output


def test_of_a_pod_only_what_concerns_it_is_shown(cluster, capsys):
    findings = [
        finding("dead-mounts", "error", "team/other"),
        finding("poisoned-image", "error", "registry.example/sample:1"),
        finding("no-index", "warning", "docker.io/library/nginx:latest"),
        finding("drift", "warning", "/etc/containerd/config.toml"),
    ]
    cluster.add("node1", *findings)
    cluster.state["workloads"]["web"] = {
        "metadata": {"name": "web", "namespace": "team"},
        "spec": {"nodeName": "node1", "containers": [{"image": "nginx"}]},
    }
    status, output, _ = cluster.run(capsys, "pod/web", "-n", "team", "--output", "json")
    (node,) = json.loads(output)["nodes"]
    assert (status, node["pod"]) == (1, "team/web")
    assert [entry["image"] for entry in node["images"]] == ["docker.io/library/nginx:latest"]
    assert [entry["id"] for entry in node["findings"]] == ["no-index", "drift"]
    assert json.loads(cluster.calls.read_text().splitlines()[1])[:5] == [
        "get",
        "pod",
        "web",
        "--namespace",
        "team",
    ]


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("team/app:2", "docker.io/team/app:2"),
        ("localhost/pause", "localhost/pause:latest"),
        ("10.0.0.1:5000/x", "10.0.0.1:5000/x:latest"),
        ("quay.io/a/b@sha256:0", "quay.io/a/b@sha256:0"),
        ("quay.io:443/a/b:1@sha256:0", "quay.io:443/a/b@sha256:0"),
        ("docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("index.docker.io/team/app", "docker.io/team/app:latest"),
    ],
)
def test_images_have_their_full_names(image, full):
    assert names.in_containerd(image) == full


# What people and programs read


def test_the_options_of_kubectl_are_handed_on(cluster, capsys):
    cluster.add("node1")
    cluster.run(capsys, "--context", "prod")
    assert all("--context=prod" in json.loads(line) for line in cluster.calls.read_text().splitlines())


def test_without_a_terminal_there_is_no_colour(cluster, capsys):
    cluster.add("node1", finding("no-fuse", "error"))
    assert "\x1b" not in cluster.run(capsys)[1]


def test_lines_are_as_wide_as_the_terminal_and_coloured_by_verdict():
    answers = [doctor.Answer("node1", report("node1", finding("no-fuse", "error", "/dev/fuse" * 3)))]
    lines = list(doctor.page(answers, doctor.Paper(60, in_color=True)))
    plain = [re.sub(r"\x1b\[\d*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 60
    assert any(line.startswith("\x1b[31merror") for line in lines)
    assert "Remedy: what ends no-fuse." in " ".join(" ".join(plain).split())


def test_programs_get_every_report(cluster, capsys):
    cluster.add("node1")
    cluster.add("node2", answer="error: gone")
    _, output, _ = cluster.run(capsys, "--output", "json")
    answer = json.loads(output)
    assert answer["verdict"] == "unknown"
    assert answer["nodes"][0] == report("node1")
    assert (answer["nodes"][1]["verdict"], answer["nodes"][1]["node"]) == ("unknown", "node2")
    assert "error: gone" in answer["nodes"][1]["problem"]


def test_a_hundred_nodes_are_one_table(cluster, capsys):
    for number in range(100):
        cluster.add(f"node{number:03}", *([finding("drift", "warning")] if number % 10 == 0 else []))
    status, output, _ = cluster.run(capsys)
    rows = re.findall(r"^node\d{3} +(good|warning) ", output, re.MULTILINE)
    assert (status, len(rows), rows.count("warning")) == (1, 100, 10)


def test_the_doctor_of_make_starts() -> None:
    """A module that is run by its path cannot import its neighbours, and one that they import warns."""
    # Below another make, the last line would name the directory.
    plan = ["make", "--no-print-directory", "--dry-run", "doctor"]
    planned = subprocess.run(plan, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    command = [*shlex.split(planned.stdout.splitlines()[-1]), "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "soci-doctor" in done.stdout

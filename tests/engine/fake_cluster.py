"""A real Kubernetes API without machines: a control plane on loopback, and nodes that only say they work."""

import contextlib
import datetime as dt
import json
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from agent.marks import ANNOTATION, CONDITION, LABEL, TAINT
from background import Process, free_port
from binaries import build
from kubernetes_api import MERGE_PATCH, STRATEGIC_PATCH, Api, ApiError
from pki import API_NAMES, Authority

from components.names import cluster_wide

INSTALLER = "soci-installer"
INSTALLER_CONTAINER = "installer"
INSTALLED = {"soci-cluster.io/install": "true"}
"""Labels of a node that is to get SOCI."""
ANY_OTHER = "*"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
COMPLETED = {"terminated": {"exitCode": 0, "reason": "Completed"}}


class ControlPlane:
    """etcd, API server, controller manager and scheduler; `kubeconfig` is the administrator's."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.authority = Authority(state / "pki")
        self.kubeconfig = state / "kubeconfig"
        self.port = free_port()
        self.processes: dict[str, Process] = {}

    def up(self) -> None:
        """Start the four processes; return when the API server is ready and serves the default namespace."""
        programs = build("kubernetes")
        self.authority.create()
        for name, user, group in (
            ("kubeconfig", "admin", "system:masters"),
            ("controllers", "system:kube-controller-manager", "test"),
            ("scheduler", "system:kube-scheduler", "test"),
        ):
            self._write_kubeconfig(self.state / name, user, group)
        for name, arguments in self._arguments().items():
            command = [str(programs / name), *arguments]
            self.processes[name] = Process(self.state / f"{name}.log", command)
            if name == "kube-apiserver":
                # The controller manager ends when it may not ask for /healthz within ten seconds.
                self._await(f"{BINDINGS}/system:public-info-viewer")
                self._await(f"{BINDINGS}/system:kube-controller-manager")
        self._await("/api/v1/namespaces/default/serviceaccounts/default")

    @classmethod
    @contextlib.contextmanager
    def running(cls, state: Path) -> Generator["ControlPlane"]:
        """A control plane that is up meanwhile; `state` is its directory."""
        plane = cls(state)
        try:
            plane.up()
            yield plane
        finally:
            plane.down()

    def down(self) -> None:
        """End the four processes, the API server's clients first."""
        for process in reversed(self.processes.values()):
            process.stop()

    def api(self) -> Api:
        """Return a client with the administrator's rights."""
        return Api(json.loads(self.kubeconfig.read_text()))

    def _write_kubeconfig(self, path: Path, user: str, group: str) -> None:
        content = json.loads(self.authority.kubeconfig(user.rpartition(":")[2], user, group))
        content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        path.write_text(json.dumps(content))

    def _await(self, path: str, patience_s: float = 180) -> None:
        api, deadline = self.api(), time.monotonic() + patience_s
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                api.call("GET", path)
                return
            time.sleep(0.1)
        raise TimeoutError("the API server is not ready: " + self.processes["kube-apiserver"].words())

    def _arguments(self) -> dict[str, list[str]]:
        etcd = f"http://127.0.0.1:{free_port()}"
        server = self.authority.sign("kube-apiserver", "kube-apiserver", "test", API_NAMES)
        account_key = self.authority.service_account_key
        return {
            "etcd": [
                f"--data-dir={self.state}/etcd",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
                "--unsafe-no-fsync=true",
                "--log-level=warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",  # it refuses loopback addresses
                f"--secure-port={self.port}",
                f"--tls-cert-file={server[0]}",
                f"--tls-private-key-file={server[1]}",
                f"--client-ca-file={self.authority.certificate}",
                f"--token-auth-file={self._tokens()}",
                f"--service-account-key-file={account_key}",
                f"--service-account-signing-key-file={account_key}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                "--allow-privileged=true",
            ],
            "kube-controller-manager": [
                f"--kubeconfig={self.state}/controllers",
                "--use-service-account-credentials=true",
                f"--root-ca-file={self.authority.certificate}",
                f"--service-account-private-key-file={account_key}",
                "--allocate-node-cidrs=false",
                "--node-monitor-grace-period=1h",  # the nodes have no heartbeat
                "--leader-elect=false",
                "--secure-port=0",
            ],
            "kube-scheduler": [
                f"--kubeconfig={self.state}/scheduler",
                "--leader-elect=false",
                "--secure-port=0",
            ],
        }

    def _tokens(self) -> Path:
        """Return the file that lets the token of the false `aws eks get-token` in as an administrator."""
        path = self.state / "tokens.csv"
        path.write_text('stand-in-token,eks-user,eks-user,"system:masters"\n')
        return path


class FakeNodes(threading.Thread):
    """Nodes without machines: a thread that answers for their kubelets and for the installer on them.

    Whoever uses it calls check() afterwards: without nodes a DaemonSet wants 0 pods and is ready at once.
    `failing` maps a node to the message ("step: cause. Remedy: ...") with which its installs fail, empty for
    none, and ANY_OTHER to that of each node that it does not name; `left`
    maps one whose installer ended together with its DaemonSet to whether it still had its rights then.
    `sample_state` is what becomes of the container of a pod that is to run once; `dead` are the nodes whose
    kubelet says nothing any more.
    """

    def __init__(self, api: Api) -> None:
        super().__init__(name="fake-nodes", daemon=True)
        self.api = api
        self.failing: dict[str, str] = {}
        self.left: dict[str, bool] = {}
        self.sample_state: dict[str, Any] = COMPLETED
        self.dead: set[str] = set()
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def add(self, name: str, labels: dict[str, str]) -> None:
        """Register a node; like every node of this API server, it is ready soon after."""
        well_known = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        metadata = {"name": name, "labels": {**well_known, **labels}}
        self.api.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})

    def remove(self, name: str) -> None:
        """Take a node away."""
        self.api.call("DELETE", f"/api/v1/nodes/{name}")

    @contextlib.contextmanager
    def having(self, nodes: Mapping[str, dict[str, str]]) -> Generator["FakeNodes"]:
        """These nodes, each with its labels, for as long as the block runs."""
        for name, labels in nodes.items():
            self.add(name, labels)
        yield self
        for name in nodes:
            self.remove(name)

    def kill(self, name: str, since: str = "") -> None:
        """Let a node's kubelet fall silent, and the API say what its node controller says then: that it is so
        since then, or since now."""
        self.dead.add(name)
        silent = condition("Ready", False, "NodeStatusUnknown", "Kubelet stopped posting node status.")
        silent |= {"lastTransitionTime": since} if since else {}
        self._set_ready(name, silent | {"status": "Unknown"}, silent)

    def revive(self, name: str) -> None:
        """Undo kill()."""
        ready = condition("Ready", True, "KubeletReady", "")
        self._set_ready(name, ready, ready)
        self.dead.discard(name)

    def _set_ready(self, name: str, of_node: dict[str, str], of_pods: dict[str, str]) -> None:
        """Give a node, and the pods that run on it, these conditions."""
        self._patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [of_node]}})
        change = {"status": {"conditions": [of_pods]}}
        running = f"spec.nodeName={name},status.phase=Running"
        for pod in self.api.call("GET", "/api/v1/pods", fieldSelector=running)["items"]:
            path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            self._patch(f"{path}/status", change)

    def serving(self) -> dict[str, bool]:
        """Return the nodes, and whether SOCI serves on them and workloads may land."""
        return {
            node["metadata"]["name"]: LABEL in node["metadata"]["labels"]
            and TAINT not in [taint["key"] for taint in node["spec"].get("taints", [])]
            and not node["spec"].get("unschedulable")
            for node in self.api.call("GET", "/api/v1/nodes")["items"]
        }

    def fail_on_new_nodes(self, message: str) -> set[str]:
        """Let installs fail so on every node that is not there yet; return those that are, all serving."""
        present = self.serving()
        assert all(present.values())
        self.failing |= {ANY_OTHER: message, **dict.fromkeys(present, "")}
        return set(present)

    def check(self) -> None:
        """Raise RuntimeError when the thread has died."""
        if self.error or not self.is_alive():
            raise RuntimeError("the fake nodes are dead; nothing this test saw counts") from self.error

    def stop(self) -> None:
        """End the thread."""
        self.ended.set()
        self.join(10)

    def run(self) -> None:
        try:
            while not self.ended.wait(0.1):
                # The pods first: a pod on a node that is not among those listed later is on one that went.
                pods = self.api.call("GET", "/api/v1/pods")["items"]
                nodes = self.api.call("GET", "/api/v1/nodes")["items"]
                for node in nodes:
                    with contextlib.suppress(GoneError):
                        self._start(node)
                names = {node["metadata"]["name"] for node in nodes}
                for pod in pods:
                    if pod["spec"].get("nodeName") and pod["spec"]["nodeName"] not in self.dead:
                        # A pod or node that has just gone, or changed, is seen to in the next round.
                        with contextlib.suppress(GoneError):
                            self._answer_for(pod, has_node=pod["spec"]["nodeName"] in names)
        except BaseException as error:  # noqa: BLE001  kept for check()
            self.error = error

    def _start(self, node: dict[str, Any]) -> None:
        """Say for a node that has said nothing yet that it is ready and how large it is."""
        if any(item["type"] == "Ready" for item in node["status"].get("conditions") or []):
            return
        sizes = {"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
        status = {
            "capacity": sizes,
            "allocatable": sizes,
            "conditions": [condition("Ready", True, "KubeletReady", "")],
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux"},
        }
        self._patch(f"/api/v1/nodes/{node['metadata']['name']}/status", {"status": status})

    def _answer_for(self, pod: dict[str, Any], *, has_node: bool) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        labels, node = pod["metadata"].get("labels", {}), pod["spec"]["nodeName"]
        is_installer = labels.get("app.kubernetes.io/name") == INSTALLER
        if not has_node:  # the pod garbage collection's work, whose first round takes it 40 s or more
            self._call("DELETE", path, {"gracePeriodSeconds": 0})
            return
        if pod["metadata"].get("deletionTimestamp"):
            if is_installer and self._installer_goes(pod):
                self.left[node] = self._may_patch_nodes(pod["metadata"]["namespace"])
                self._take_marks(node)
            self._call("DELETE", path, {"gracePeriodSeconds": 0})
            return
        trouble = None
        if is_installer:
            trouble = self.failing.get(node, self.failing.get(ANY_OTHER))
            self._report(pod, node, trouble)
        elif pod["spec"]["restartPolicy"] == "Never":
            self._run_once(pod, path)
            return
        wanted = "CrashLoopBackOff" if trouble else "Running"
        if said(pod) != wanted:
            self._patch(f"{path}/status", {"status": pod_status(pod, trouble)})

    def _run_once(self, pod: dict[str, Any], path: str) -> None:
        """Do to the API what a kubelet does with a pod that is to run once."""
        statuses = pod["status"].get("containerStatuses") or []
        if pod["status"].get("phase") in ("Succeeded", "Failed") or any(
            status["state"] == self.sample_state for status in statuses
        ):
            return
        if waiting := self.sample_state.get("waiting"):
            self._warn_of_pod(pod, "Failed", waiting["message"])
        self._patch(f"{path}/status", {"status": once_status(pod, self.sample_state)})

    def _report(self, pod: dict[str, Any], node: str, trouble: str | None) -> None:
        """Do to the API what the installer's agent does at the end of an install."""
        if said(pod) == ("CrashLoopBackOff" if trouble else "Running"):
            return
        if not trouble and self._settings(pod)["state"] == "absent":
            self._take_marks(node)
            return
        version = pod["metadata"]["labels"].get("app.kubernetes.io/version", "")
        reason = "InstallFailed" if trouble else "Verified"
        message = trouble or f"SOCI {version} verified"
        self._patch(
            f"/api/v1/nodes/{node}/status",
            {"status": {"conditions": [condition(CONDITION, not trouble, reason, message)]}},
        )
        if trouble:
            self._warn(pod, node, message)
            return
        install = {
            "verifiedSeconds": 4.2,
            "containerdDownSeconds": 0.4,
            "containerdRestarts": 1,
            "version": version,
        }
        live = self._call("GET", f"/api/v1/nodes/{node}")
        taints = [taint for taint in live["spec"].get("taints", []) if taint["key"] != TAINT]
        change = {
            "metadata": {
                "labels": {LABEL: version},
                "annotations": {ANNOTATION: json.dumps(install)},
            },
            "spec": {"taints": taints or None},
        }
        self._call("PATCH", f"/api/v1/nodes/{node}", change, MERGE_PATCH)

    def _settings(self, pod: dict[str, Any]) -> dict[str, Any]:
        """Return what the installer in this pod is to do."""
        volume = next(item for item in pod["spec"]["volumes"] if "configMap" in item)
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/configmaps/{volume['configMap']['name']}"
        return json.loads(self._call("GET", path)["data"]["settings.json"])

    def _installer_goes(self, pod: dict[str, Any]) -> bool:
        """Say whether the pod ends together with its DaemonSet."""
        path = f"/apis/apps/v1/namespaces/{pod['metadata']['namespace']}/daemonsets/{INSTALLER}"
        try:
            return "deletionTimestamp" in self._call("GET", path)["metadata"]
        except GoneError:
            return True

    def _may_patch_nodes(self, namespace: str) -> bool:
        """Say whether the installer of a namespace still has its rights."""
        name = cluster_wide(namespace)
        try:
            self._call("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}")
            self._call("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}")
        except GoneError:
            return False
        return True

    def _take_marks(self, node: str) -> None:
        """Do to the API what the installer's agent does before an uninstall."""
        gone = {
            "labels": {LABEL: None},
            "annotations": {ANNOTATION: None},
        }
        self._call("PATCH", f"/api/v1/nodes/{node}", {"metadata": gone}, MERGE_PATCH)
        change = {"status": {"conditions": [{"type": CONDITION, "$patch": "delete"}]}}
        self._patch(f"/api/v1/nodes/{node}/status", change)

    def _warn(self, pod: dict[str, Any], node: str, message: str) -> None:
        """Emit the installer's Warning Event on its DaemonSet."""
        owner = pod["metadata"]["ownerReferences"][0]
        self._emit(pod, owner, {"reason": "SociInstallFailed", "message": f"node {node}: step {message}"})

    def _warn_of_pod(self, pod: dict[str, Any], reason: str, message: str) -> None:
        """Emit a kubelet's Warning Event on a pod."""
        about = {"apiVersion": "v1", "kind": "Pod", **pod["metadata"]}
        source = {"component": "kubelet", "host": pod["spec"]["nodeName"]}
        self._emit(pod, about, {"reason": reason, "message": message, "source": source})

    def _emit(self, pod: dict[str, Any], about: dict[str, Any], said: dict[str, Any]) -> None:
        """Emit a Warning Event about an object in the pod's namespace."""
        namespace = pod["metadata"]["namespace"]
        event = {
            "metadata": {"generateName": "soci-", "namespace": namespace},
            "involvedObject": {
                **{key: about[key] for key in ("apiVersion", "kind", "name", "uid")},
                "namespace": namespace,
            },
            "type": "Warning",
            **said,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        self._call("POST", f"/api/v1/namespaces/{namespace}/events", event)

    def _patch(self, path: str, change: dict[str, Any]) -> None:
        self._call("PATCH", path, change, STRATEGIC_PATCH)

    def _call(self, *request: Any) -> dict[str, Any]:
        try:
            return self.api.call(*request)
        except ApiError as error:
            if error.status in (404, 409):
                raise GoneError(str(error)) from error
            raise


class GoneError(Exception):
    """The object has gone, or somebody else has just changed it."""


def now() -> str:
    """Return the time as the API writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, good: bool, reason: str, message: str) -> dict[str, str]:
    """Return a condition of a node or a pod."""
    status = "True" if good else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}


def said(pod: dict[str, Any]) -> str:
    """Return what the pod's status says by now: Pending, Running or CrashLoopBackOff."""
    states = [status["state"] for status in pod.get("status", {}).get("containerStatuses") or []]
    if any("waiting" in state for state in states):
        return "CrashLoopBackOff"
    return "Running" if states else "Pending"


def pod_status(pod: dict[str, Any], trouble: str | None) -> dict[str, Any]:
    """Return the status of a pod that runs, or whose installer fails ever again beside what else is in it."""
    node, containers = pod["spec"]["nodeName"], []
    for container in sorted(pod["spec"]["containers"], key=lambda container: container["name"]):
        fails = bool(trouble) and container["name"] == INSTALLER_CONTAINER
        state: dict[str, Any] = {"running": {"startedAt": now()}}
        last: dict[str, Any] = {}
        if fails:
            state = {
                "waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
            }
            last = {
                "terminated": {"exitCode": 1, "reason": "Error", "message": f"node {node}: step {trouble}"}
            }
        containers.append(
            container_status(container, state)
            | {"ready": not fails, "restartCount": 1 if fails else 0, "lastState": last}
        )
    ready = [condition(kind, not trouble, "", "") for kind in ("Ready", "ContainersReady")]
    return {
        "phase": "Running",
        "conditions": ready,
        "containerStatuses": containers,
        "startTime": now(),
    }


def once_status(pod: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a pod that is to run once and whose containers are in this state."""
    ended = state.get("terminated")
    state = {"terminated": {"startedAt": now(), **ended}} if ended else state
    return {
        "phase": "Pending" if not ended else "Failed" if ended["exitCode"] else "Succeeded",
        "conditions": [condition(kind, False, "", "") for kind in ("Ready", "ContainersReady")],
        "containerStatuses": [container_status(item, state) for item in pod["spec"]["containers"]],
        "startTime": now(),
    }


def container_status(container: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a container that is in this state and not ready."""
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }

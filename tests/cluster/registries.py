"""Registries as nodes meet them: what becomes of an image that is pulled and read from each.

A case is a registry with habits, what the node and the pod know of it, and what happens while the pod reads.
Its image starts in every case. It is loaded lazily, or the node says why it is not.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import firewall
from awkward_registry import Auth, Away, AwkwardRegistry, Fault, User, certificate
from kubernetes.client.exceptions import ApiException
from lab_client import on_node
from nodes import CREDENTIAL_PROVIDERS, Node
from pki import Authority
from proxy import Proxy
from settings import ADDRESS, ECR, REGISTRY, REGISTRY_NAMES, state_directory

from tests.cluster import lazy_images
from tests.cluster.looks import SOCI_NODES, condition, doctor
from tests.waiting import wait_for

START_SECONDS = 120
PASS_SECONDS = 180  # in which a pod has read every file once, also after what happens meanwhile
REMOVED_SECONDS = 180  # the kubelet looks once a minute for containers whose pods have gone
PROVIDER = f"/etc/{CREDENTIAL_PROVIDERS}"
ANSWERS = "/run/soci-cluster/credentials"  # what the credential helper keeps
CERTS = "/etc/containerd/certs.d"
PRIVATE, PUBLIC, HEADER = "private.registry.lab", "public.registry.lab", "header.registry.lab"
OWN_CA, UNVERIFIED, CLIENT = "own-ca.registry.lab", "unverified.registry.lab", "client.registry.lab"
MIRRORED, MIRROR_PREFIX = "mirrored.registry.lab", "/v2/cache"
ANN = User("correct horse", ("case/*",))
# For the daemon: its background fetch else has the whole image before anything can happen to a read.
SLOW_BYTES_PER_SECOND = 150_000
ADDRESS_OF = {name: address for address, names in REGISTRY_NAMES.items() for name in names}

# With a pause after each file what happens meanwhile meets reads from the registry; then on and on.
READER = """
reads=0 errors=0 passes=0
while :; do
  for file in /data/*; do
    if cat "$file" >/dev/null; then reads=$((reads + 1)); else errors=$((errors + 1)); fi
    echo "passes=$passes reads=$reads errors=$errors"
    [ $passes -gt 0 ] || usleep $PAUSE
    [ $passes = 0 ] || usleep 500000
  done
  passes=$((passes + 1))
done
"""


class Scene:
    """The registries of all cases, in front of the lab's own."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.own_authority = Authority(state_directory() / "pki-registries" / "own")
        upstream = f"http://{REGISTRY}"

        def files(authority: Authority, address: str) -> tuple[Path, Path]:
            return certificate(authority, [*REGISTRY_NAMES[address], address])

        self.trusted = trusted_registry()
        self.own_ca = AwkwardRegistry(
            upstream, "10.77.0.4", 443, certificate=files(self.own_authority, "10.77.0.4")
        )
        clients = self.own_authority.certificate
        of_client = files(self.own_authority, "10.77.0.5")
        self.client = AwkwardRegistry(upstream, "10.77.0.5", 443, certificate=of_client, clients=clients)
        self.proxy = Proxy(ADDRESS, ADDRESS_OF)
        self.fronts = (self.trusted, self.own_ca, self.client)

    def behave(self) -> None:
        for front in self.fronts:
            front.behave()

    def be_slow(self) -> None:
        """Have reads from the registries go on for a minute, where no fault of theirs comes first."""
        slow = Fault(bytes_per_second=SLOW_BYTES_PER_SECOND, agent="soci", kinds=("blobs", "store"))
        for front in self.fronts:
            front.faults = [*front.faults, slow]

    def close(self) -> None:
        for front in self.fronts:
            front.close()
        self.proxy.close()

    def hosts_files(self) -> dict[str, str]:
        """Directory below containerd's certs.d -> its hosts.toml."""
        return {
            OWN_CA: _hosts(OWN_CA, 'ca = "/etc/containerd/lab/own-ca.pem"'),
            UNVERIFIED: _hosts(UNVERIFIED, "skip_verify = true"),
            CLIENT: _hosts(
                CLIENT,
                'ca = "/etc/containerd/lab/own-ca.pem"\n'
                '  client = [["/etc/containerd/lab/client.pem", "/etc/containerd/lab/client.key"]]',
            ),
            HEADER: _hosts(HEADER, f'[host."https://{HEADER}".header]\n    X-Mirror = "lab"'),
            MIRRORED: f'server = "https://{MIRRORED}"\n\n'
            f'[host."https://{PRIVATE}{MIRROR_PREFIX}"]\n'
            '  capabilities = ["pull", "resolve"]\n  override_path = true\n',
        }

    def tell(self, node: str) -> None:
        """Write these files on a node, as another tool does, and what they name."""
        etc = Node.load(state_directory(), node).root / "etc/containerd"
        (etc / "lab").mkdir(exist_ok=True)
        chain, key = self.own_authority.sign("client", "client", "lab")
        for name, source in (
            ("own-ca.pem", self.own_authority.certificate),
            ("client.pem", chain),
            ("client.key", key),
        ):
            (etc / "lab" / name).write_text(source.read_text())
        for registry, text in self.hosts_files().items():
            (etc / "certs.d" / registry).mkdir(exist_ok=True)
            (etc / "certs.d" / registry / "hosts.toml").write_text(text)

    def untell(self, node: str) -> None:
        named = " ".join(f"{CERTS}/{registry}" for registry in self.hosts_files())
        on_node(node, f"rm -rf {named} /etc/containerd/lab; {provider_file()}")


def trusted_registry() -> AwkwardRegistry:
    """The one in front of the lab's own whose authority the nodes trust; it redirects to a store."""
    address, store = "10.77.0.2", "10.77.0.3"
    authority = Authority(state_directory() / "pki-registries")
    own = certificate(authority, [*REGISTRY_NAMES[address], address, store])
    upstream = f"http://{REGISTRY}"
    return AwkwardRegistry(upstream, address, 443, certificate=own, store_address=store, store_port=443)


def pull_secret(name: str, host: str, user: str, password: str) -> dict[str, Any]:
    """A Secret with the credentials of one registry."""
    auths = {"auths": {host: {"username": user, "password": password}}}
    return {
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps(auths)},
    }


def _hosts(registry: str, *lines: str) -> str:
    own = [f'server = "https://{registry}"', "", f'[host."https://{registry}"]']
    own += ['  capabilities = ["pull", "resolve"]', *(f"  {line}" for line in lines)]
    return "\n".join([*own, ""])


def provider_file(**values: str) -> str:
    """The script that has the node's provider plugin behave so, and nobody remember what it said before."""
    lines = "".join(f"{name}='{value}'\\n" for name, value in values.items())
    write = f'printf "{lines}" >{PROVIDER}/stand-in' if values else f"rm -f {PROVIDER}/stand-in"
    return f"{write}; rm -f {ANSWERS}/*; systemctl restart kubelet"


@dataclass(frozen=True)
class Case:
    """One registry and its image.

    Args:
        habits: sets up the registries.
        before: a script for each node, of the scene, before its pod is made.
        secret: user and password that the pod brings.
        during: happens once the pods of all nodes read.
        after: the script that takes back what `before` did.
        lazy: whether the image has to be loaded lazily; None: as the daemon can, and if not it is said.
        user: as whom the daemon has to have read; empty for nobody.
        file_bytes: of the image's files; when it is whole for a reason of its own, LARGE, or nobody tells.
    """

    name: str
    host: str
    habits: Callable[[Scene], None] = Scene.behave
    before: Callable[[Scene], str] = lambda scene: ""
    secret: tuple[str, str] | None = None
    during: Callable[[Scene], None] | None = None
    after: str = ""
    lazy: bool | None = True
    user: str = ""
    file_bytes: int = lazy_images.SMALL

    @property
    def repository(self) -> str:
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower())
        return f"case/{'-'.join(words.split())}"

    @property
    def image(self) -> str:
        return f"{self.host}/{self.repository}:1"


def behave(**habits: Any) -> Callable[[Scene], None]:
    """Habits of the trusted registry."""

    def apply(scene: Scene) -> None:
        for name, value in habits.items():
            setattr(scene.trusted, name, value() if callable(value) else value)

    return apply


def ecr(**habits: Any) -> Callable[[Scene], None]:
    users = {"AWS": User("", ("case/*",))}
    return behave(auth=Auth.ECR, users=users, **habits)


def bearer(**habits: Any) -> Callable[[Scene], None]:
    return behave(auth=Auth.BEARER, users={"ann": ANN}, **habits)


def faults(*described: dict[str, Any]) -> Callable[[Scene], None]:
    return bearer(faults=lambda: [Fault(**one) for one in described])


def provider(**values: str) -> Callable[[Scene], str]:
    return lambda scene: provider_file(api=scene.trusted.api.url, **values)


def every(seconds: float, times: int, act: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def events(scene: Scene) -> None:
        for _ in range(times):
            time.sleep(seconds)
            act(scene)

    return events


def lasts(seconds: float) -> Callable[[Scene], None]:
    """Time goes by: what has a short life ends."""
    return lambda scene: time.sleep(seconds)


def away(seconds: float, how: Away = Away.REFUSED) -> Callable[[Scene], None]:
    def event(scene: Scene) -> None:
        with scene.trusted.away(how):
            time.sleep(seconds)

    return event


def revoke(scene: Scene) -> None:
    scene.trusted.revoke_all()


def proxied(scene: Scene) -> str:
    """The node reaches the cluster and the proxy alone, and containerd knows of the proxy."""
    folder = "/etc/systemd/system/containerd.service.d"
    environment = f"[Service]\\nEnvironment=HTTPS_PROXY={scene.proxy.url} NO_PROXY={ADDRESS}\\n"
    return "\n".join(
        [
            f"mkdir -p {folder}; printf '{environment}' >{folder}/lab-proxy.conf",
            "systemctl daemon-reload; systemctl restart containerd",
            firewall.close([f"{scene.proxy.address}:{scene.proxy.port}"]),
            # The installer notices, and has the daemon started with it.
            "for i in $(seq 90); do",
            "for pid in $(pgrep -f /soci-snapshotter-grpc); do",
            f"tr '\\0' '\\n' </proc/$pid/environ | grep -q '^HTTPS_PROXY={scene.proxy.url}$' && exit",
            "done",
            "sleep 1",
            "done 2>/dev/null",
        ]
    )


UNPROXIED = "\n".join(
    [
        firewall.open_again(),
        "rm -f /etc/systemd/system/containerd.service.d/lab-proxy.conf",
        "systemctl daemon-reload; systemctl restart containerd",
    ]
)


def closed(scene: Scene) -> str:
    return firewall.close([f"{scene.trusted.front.address}:443"])


TOO_MANY = {"status": 429, "kinds": ("blobs",), "agent": "soci"}
CASES = [
    Case("public", PUBLIC),
    Case("provider plugin, anonymous pod", ECR, ecr(), provider(), user="AWS"),
    Case("imagePullSecret, bearer", PRIVATE, bearer(), secret=("ann", ANN.password), user="ann"),
    Case(
        "imagePullSecret, basic",
        PRIVATE,
        behave(auth=Auth.BASIC, users={"ann": ANN}),
        secret=("ann", ANN.password),
        user="ann",
    ),
    Case("tokens by GET alone", PRIVATE, bearer(oauth=False), secret=("ann", ANN.password), user="ann"),
    Case(
        "ECR's tokens live ten seconds",
        ECR,
        ecr(token_seconds=10),
        provider(),
        during=lasts(25),
        user="AWS",
    ),
    Case(
        "401 in mid-read",
        PRIVATE,
        bearer(),
        secret=("ann", ANN.password),
        during=every(2, 8, revoke),
        user="ann",
    ),
    Case("the CA is in hosts.toml", OWN_CA),
    Case("verification is skipped in hosts.toml", UNVERIFIED, lazy=False),
    Case("a client certificate in hosts.toml", CLIENT, lazy=False),
    Case("a header in hosts.toml", HEADER, behave(required_headers={"X-Mirror": "lab"}), lazy=False),
    Case("a mirror with a path, and no other", MIRRORED, behave(prefix=MIRROR_PREFIX), lazy=False),
    Case(
        "redirects whose links expire, 403",
        PRIVATE,
        bearer(redirects=True, link_seconds=3),
        secret=("ann", ANN.password),
        during=lasts(20),
        user="ann",
    ),
    Case(
        "redirects whose links expire, 400 ExpiredToken",
        ECR,
        ecr(redirects=True, link_seconds=3, store_refusal=(400, "ExpiredToken")),
        provider(),
        during=lasts(20),
        user="AWS",
    ),
    Case(
        "429 with Retry-After",
        PRIVATE,
        faults({**TOO_MANY, "headers": {"Retry-After": "1"}, "times": 6}),
        secret=("ann", ANN.password),
        user="ann",
    ),
    Case("429 without", PRIVATE, faults({**TOO_MANY, "times": 6}), secret=("ann", ANN.password), user="ann"),
    # SOCI asks a second time for neither an index nor a span whose body broke off.
    Case(
        "bodies break off",
        PUBLIC,
        behave(faults=lambda: [Fault(cut_after=50_000, times=4, agent="soci", kinds=("blobs",))]),
        lazy=None,
        file_bytes=lazy_images.LARGE,
    ),
    Case("registry away for 20 s", PUBLIC, during=away(20)),
    Case("registry silent for 20 s", PUBLIC, during=away(20, Away.SILENT)),
    *(
        Case(
            f"plugin: {what}",
            ECR,
            ecr(),
            provider(others=what),
            lazy=False,
            file_bytes=lazy_images.LARGE if what == "null" else lazy_images.SMALL,
        )
        for what in ("fail", "hang", "rubbish", "null")
    ),
    Case(
        "plugin: hang, for the kubelet too",
        ECR,
        ecr(public=("case/*",)),
        provider(behaviour="hang"),
        lazy=None,
    ),
    Case(
        "behind a proxy, firewall closed",
        PRIVATE,
        bearer(),
        proxied,
        secret=("ann", ANN.password),
        after=UNPROXIED,
        user="ann",
    ),
    Case(
        "air gap, one registry",
        PRIVATE,
        bearer(),
        closed,
        secret=("ann", ANN.password),
        after=firewall.open_again(),
        user="ann",
    ),
]
QUICK = ("imagePullSecret, bearer",)
SLOW = (
    "provider plugin, anonymous pod",
    "the CA is in hosts.toml",
    "a client certificate in hosts.toml",
    "plugin: rubbish",
)


@dataclass
class Reader:
    """A pod that reads its image on one node, and what it has counted."""

    api: Any
    node: str
    case: Case
    name: str = ""
    secrets: list[str] = field(default_factory=list)

    def start(self, seconds: float = START_SECONDS) -> bool:
        """Whether the pod runs in time."""
        command = ["sh", "-c", f"PAUSE={500_000 if self.case.during else 20_000}\n{READER}"]
        spec: dict[str, Any] = {
            "nodeName": self.node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": self.case.image, "command": command}],
            "tolerations": [{"operator": "Exists"}],
        }
        self.name = f"registries-{self.node}-{time.monotonic_ns() % 10**9}"
        if self.case.secret:
            self._make_secret(*self.case.secret)
            spec["imagePullSecrets"] = [{"name": self.name}]
        self.api.create_namespaced_pod("default", {"metadata": {"name": self.name}, "spec": spec})
        with contextlib.suppress(AssertionError):
            wait_for(lambda: self._status().phase == "Running", seconds, self.name)
        return self._status().phase == "Running"

    def counts(self) -> tuple[int, int, int]:
        """Passes over all files, reads and errors so far."""
        # Between two counts stands what cat says of a file that it cannot read.
        log = self.log()
        found = re.findall(r"^passes=(\d+) reads=(\d+) errors=(\d+)$", log, re.MULTILINE)
        assert found or not log, f"{self.name} on {self.node} says: {log}"
        passes, reads, errors = map(int, found[-1] if found else (0, 0, 0))
        return passes, reads, errors

    def log(self) -> str:
        """The last lines that the pod wrote."""
        return self.api.read_namespaced_pod_log(self.name, "default", tail_lines=5)

    def await_pass(self) -> int:
        """Errors, once each file has been read since now or before."""
        wait_for(
            lambda: self.counts()[0] > 0, PASS_SECONDS, f"{self.name} has read everything: {self.words()}"
        )
        return self.counts()[2]

    def is_lazy(self, scene: Scene) -> bool:
        """Whether the daemon has mounts for the container, and has asked for parts of the layer."""
        (container,) = self._status().container_statuses
        mounted = on_node(self.node, "/opt/soci-cluster/soci-host.sh mounts")
        return container.container_id.rpartition("/")[2] in mounted and self.has_asked(scene)

    def has_asked(self, scene: Scene, since: float = 0) -> bool:
        """Whether the daemon has asked for parts of the layer, and got them."""
        address = Node.load(state_directory(), self.node).spec.address
        return any(
            request.ranged
            and request.status in (200, 206, 307)
            and request.client in (address, scene.proxy.address)
            for front in scene.fronts
            for request in front.requests(since, repository=self.case.repository, agent="soci", kind="blobs")
        )

    def is_named(self) -> bool:
        """Whether condition or doctor say something of the image or its registry."""
        words = [condition(self.api, self.node).get("message") or ""]
        (report,) = doctor(self.node)[1]["nodes"]
        words += [f"{found['subject']} {found['cause']}" for found in report["findings"]]
        return any(self.case.host in text for text in words)

    def words(self) -> list[str]:
        selector = f"involvedObject.name={self.name}"
        items = self.api.list_namespaced_event("default", field_selector=selector).items
        return [f"{item.reason}: {item.message}" for item in items]

    def end(self) -> None:
        with contextlib.suppress(ApiException):
            self.api.delete_namespaced_pod(self.name, "default", grace_period_seconds=0)

    def close(self) -> None:
        """The pod is gone, and the node knows nothing of the image."""
        self.end()
        for name in self.secrets:
            with contextlib.suppress(ApiException):
                self.api.delete_namespaced_secret(name, "default")
        forget(self.node, self.case.repository)

    def _status(self) -> Any:
        return self.api.read_namespaced_pod(self.name, "default").status

    def replace_secret(self, user: str, password: str) -> None:
        """Rotate the pod's secret."""
        self.api.patch_namespaced_secret(self.name, "default", self._secret(user, password))

    def _make_secret(self, user: str, password: str) -> None:
        self.api.create_namespaced_secret("default", self._secret(user, password))
        self.secrets.append(self.name)

    def _secret(self, user: str, password: str) -> dict[str, Any]:
        return pull_secret(self.name, self.case.host, user, password)


FORGET = """
digests=$(ctr -n k8s.io images ls | awk -v names="$names" '$1 ~ names { print $3 }' | sort -u)
for digest in $digests; do
    ctr -n k8s.io images ls -q "target.digest==$digest" | xargs -r ctr -n k8s.io images rm --sync >/dev/null
done
"""


def forget(node: str, repository: str) -> None:
    """The node has no image of the repository under any name; none below it when it ends in a slash."""
    names = f"/{repository}" if repository.endswith("/") else f"/{repository}[:@]"
    containers = f"ctr -n k8s.io containers ls | grep -c '{names}' || :"
    wait_for(
        lambda: on_node(node, containers).strip() == "0",
        REMOVED_SECONDS,
        f"no container of {repository} on {node}",
    )
    on_node(node, f"names='{names}'\n{FORGET}")


def run(api: Any, scene: Scene, case: Case) -> list[dict[str, Any]]:
    """Run a case on all nodes at once: what came of it on each.

    Each has name, node, started, lazy, named, read_errors and as whom the daemon read.
    """
    lazy_images.push(case.repository, case.file_bytes)
    scene.behave()
    case.habits(scene)
    if case.during:
        scene.be_slow()
    readers = [Reader(api, node, case) for node in SOCI_NODES]
    try:
        with ThreadPoolExecutor(len(readers)) as threads:
            list(threads.map(lambda reader: on_node(reader.node, case.before(scene) or ":"), readers))
            begun = time.monotonic()
            started = list(threads.map(Reader.start, readers))
            happens = case.during if all(started) else None
            if happens:
                happens(scene)
            over = time.monotonic()
            outcomes = list(
                threads.map(lambda pair: _outcome(scene, *pair, begun), zip(readers, started, strict=True))
            )
            if happens:
                for reader in readers:
                    assert reader.has_asked(scene, over), f"{reader.node} had everything when it was over"
            return outcomes
    finally:
        scene.behave()
        for reader in readers:
            if case.after:
                on_node(reader.node, case.after)
            reader.close()


def _outcome(scene: Scene, reader: Reader, started: bool, begun: float) -> dict[str, Any]:
    found: dict[str, Any] = {"name": reader.case.name, "node": reader.node, "started": started}
    if not started:
        return {**found, "lazy": False, "named": reader.is_named(), "words": reader.words()}
    errors = reader.await_pass()
    lazy = reader.is_lazy(scene)
    users = {
        request.user
        for front in scene.fronts
        for request in front.requests(begun, repository=reader.case.repository, agent="soci")
        if request.status in (200, 206, 307)
    }
    return {
        **found,
        "lazy": lazy,
        "named": lazy or reader.is_named(),
        "read_errors": errors,
        "users": sorted(users - {""}),
    }

"""Programs built from published Go modules, each set once, into the cache.

No package registry carries Kubernetes, containerd, SOCI or the Pulumi CLI as programs. The Go module proxy
carries their source, and the go.sum files below go/ pin every byte of it.
"""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cache import cached
from settings import HERE, VERSIONS, LabError, cache_directory

KUBERNETES_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)


@dataclass(frozen=True)
class Target:
    """A set of programs linked from one Go module.

    programs maps a program's file name to its Go package; links maps further names to one of the programs.
    """

    module: Path
    programs: dict[str, str]
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=lambda: {"CGO_ENABLED": "0"})
    links: dict[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Return the hexadecimal digest of everything that the programs are made from."""
        digest = hashlib.sha256()
        for path in sorted(self.module.glob("*")):
            if path.name in ("go.mod", "go.sum") or path.suffix == ".go":
                digest.update(path.name.encode() + path.read_bytes())
        digest.update(
            repr((self.programs, self.flags, sorted(self.environment.items()), self.links)).encode()
        )
        return digest.hexdigest()


def _linker_flags(*variables: str) -> tuple[str, ...]:
    return ("-ldflags", " ".join(["-s -w", *(f"-X {variable}" for variable in variables)]))


def _kubernetes() -> Target:
    version = VERSIONS["kubernetes"]
    major, minor, _ = version.split(".")
    component, client = "k8s.io/component-base/version", "k8s.io/client-go/pkg/version"
    flags = _linker_flags(
        f"{component}.gitVersion=v{version}",
        f"{component}.gitMajor={major}",
        f"{component}.gitMinor={minor}",
        f"{component}.gitTreeState=clean",
        f"{client}.gitVersion=v{version}",
        f"{client}.gitMajor={major}",
        f"{client}.gitMinor={minor}",
    )
    links = dict.fromkeys(KUBERNETES_PROGRAMS, "kube-all")
    return Target(HERE / "go/kubernetes", {"kube-all": "."}, flags, links=links)


def _soci() -> Target:
    # Static, as the release's own "-static" programs are: it must start on any node, whatever its C library.
    linker = f"-s -w -X main.version=v{VERSIONS['soci']} -linkmode external -extldflags -static"
    flags = ("-tags", "osusergo,netgo", "-ldflags", linker)
    return Target(
        HERE / "go/soci",
        {"soci-snapshotter-grpc": "."},
        flags,
        environment={"CGO_ENABLED": "1"},
        links={"soci": "soci-snapshotter-grpc"},
    )


def _containerd(version: str) -> Target:
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[a-z0-9.]+)?", version):
        series = ", ".join(VERSIONS["containerd"])
        raise LabError(
            f"{version!r} is no containerd version; say 2.3.7, or one of the pinned series {series}"
        )
    path = "github.com/containerd/containerd" + ("" if version.startswith("1.") else "/v2")
    programs = {name: f"{path}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")}
    flags = (
        "-tags",
        "no_btrfs,no_zfs,no_devmapper,no_aufs",
        *_linker_flags(f"{path}/version.Version=v{version}"),
    )
    module = HERE / f"go/containerd-{version.rsplit('.', 1)[0]}"
    if version not in VERSIONS["containerd"].values():
        module = _module_of_tools(
            f"containerd-{version}", [f"{package}@v{version}" for package in programs.values()]
        )
    return Target(module, programs, flags)


def _pulumi() -> Target:
    version = VERSIONS["pulumi"]
    flags = _linker_flags(f"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{version}")
    return Target(HERE / "go/pulumi", {"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"}, flags)


def _registry() -> Target:
    return Target(HERE / "go/registry", {"registry": "."}, _linker_flags())


def _distribution() -> Target:
    return Target(HERE / "go/distribution", {"distribution": "."}, _linker_flags())


def _oras() -> Target:
    version = f"oras.land/oras/internal/version.Version={VERSIONS['oras']}"
    return Target(HERE / "go/oras", {"oras": "oras.land/oras/cmd/oras"}, _linker_flags(version))


def _karpenter() -> Target:
    # Karpenter's own controllers with its provider kwok, which makes Node objects in the place of instances.
    programs = {"karpenter": "sigs.k8s.io/karpenter/kwok", "karpenter-crds": "."}
    return Target(HERE / "go/karpenter", programs, _linker_flags())


def target(name: str) -> Target:
    """Return the target of that name: a program of the lab's, or containerd-<version>.

    Raises LabError for any other name, and when a containerd version without a module here cannot be fetched.
    """
    makers = {
        "kubernetes": _kubernetes,
        "soci": _soci,
        "registry": _registry,
        "distribution": _distribution,
        "oras": _oras,
        "pulumi": _pulumi,
        "karpenter": _karpenter,
    }
    if name in makers:
        return makers[name]()
    if name.startswith("containerd-"):
        return _containerd(_full_name(name).removeprefix("containerd-"))
    raise LabError(f"no program named {name!r}; there are {', '.join(makers)} and containerd-<version>")


def build(name: str) -> Path:
    """Return the cache directory that holds the target's programs, built first when it does not exist.

    Safe to call from several processes at once: one builds, the others wait for it. Raises LabError with the
    end of the compiler's words when the build fails.
    """
    wanted = target(name)

    def make(directory: Path) -> None:
        directory.mkdir()
        for program, package in wanted.programs.items():
            command = ["build", "-trimpath", "-buildvcs=false", *wanted.flags]
            _go([*command, "-o", str(directory / program), package], wanted.module, wanted.environment)
        for link, program in wanted.links.items():
            (directory / link).symlink_to(program)

    return cached(_cache_name(name, wanted), make)


def missing(names: list[str]) -> list[str]:
    """Return those of the targets whose programs are not in the cache yet."""
    return [name for name in names if not (cache_directory() / _cache_name(name, target(name))).exists()]


def _full_name(name: str) -> str:
    """Return the target's name with the pinned version in the place of a series: containerd-1.7."""
    series = name.removeprefix("containerd-")
    return f"containerd-{VERSIONS['containerd'][series]}" if series in VERSIONS["containerd"] else name


def _cache_name(name: str, wanted: Target) -> str:
    return f"bin/{_full_name(name)}-{wanted.key()[:16]}"


def _module_of_tools(name: str, packages: list[str]) -> Path:
    """Return a Go module in the cache that pins the packages as tools; made by asking the module proxy."""

    def make(module: Path) -> None:
        module.mkdir()
        _go(["mod", "init", f"socicluster/lab/{name}"], module, {})
        _go(["get", "-tool", *packages], module, {})

    return cached(f"go/{name}", make)


def _go(arguments: list[str], directory: Path, environment: dict[str, str]) -> None:
    if not shutil.which("go"):
        raise LabError(
            f"Go {VERSIONS['go']} or newer is not on PATH. Remedy: install it from https://go.dev/dl/"
        )
    done = subprocess.run(
        ["go", *arguments],
        cwd=directory,
        env={**os.environ, **environment, "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise LabError(f"go {arguments[0]} in {directory} failed (exit {done.returncode}):\n{words}")

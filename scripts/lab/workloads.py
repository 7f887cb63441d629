"""Images that `make bench` starts, made here and put into the running lab's registry.

reads          the sample's layers, and lists of files: a program that reads a share of them, in order or not
python         Python that imports numpy, pandas, scipy and scikit-learn, from their wheels
notebook       JupyterLab's server, from its wheels, until it listens
jvm            a Java virtual machine that starts and says its version
static         one static program of 150 MB that says its version
small-files    20,000 files of 1 to 4 KiB, of which a program reads 500 all over the place
large          3.4 GB in 19 layers, 6.8 GB unpacked, of which nothing is read: so large was the image on which
               the first version of this project was measured

Each stands there once without an index, and with a SOCI v2 index once with spans of 4 MiB and once of 1 MiB.
"""

import hashlib
import json
import random
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import base
import binaries
import images
from cache import cached
from control_plane import run
from settings import HERE, REGISTRY, REPOSITORY, LabError

SPANS = {"4mib": 4 << 20, "1mib": 1 << 20}
PLAIN = "plain"  # the tag of the image without an index
STARTED, READY = "started", "ready"
INDEX = "com.amazon.soci.index-digest"  # on a manifest that `soci convert` has written
KEEP = "exec sleep 3600"
SMALL_FILES, SMALL_FILES_READ = 20_000, 500
LARGE_LAYERS, LARGE_FILES, LARGE_FILE_BYTES = 18, 90, 4_190_000  # besides the first layer
PYTHON_ROOT = (*base.PYTHON_PACKAGES, "libgomp1")
JVM_PACKAGES = ("openjdk-17-jre-headless", "ca-certificates")
# The hashed requirements of each workload of Python packages.
WHEELS = {name: HERE / f"workload-{name}.txt" for name in ("python", "notebook")}
PACKAGES = "usr/lib/python3/dist-packages"


@dataclass(frozen=True)
class Made:
    """An image and what is started of it.

    needed_bytes are those of what it reads, compressed; None when that is not known.
    """

    name: str
    repository: str
    command: tuple[str, ...]
    needed_bytes: int | None = None
    ready: str = READY

    def image(self, tag: str) -> str:
        """Its name with one of SPANS, or PLAIN."""
        return f"{REGISTRY}/{self.repository}:{tag}"


def reads() -> dict[str, list[tuple[str, int]]]:
    """The read patterns of the sample's files: name -> path and size of what is read, in its order."""
    every = [file for layer in range(1, images.SAMPLE_LAYERS + 1) for file in images.sample_files(layer)]
    total = sum(size for _, size in every)
    # Not from the begin of a layer on, where files would fill SOCI's spans exactly.
    begin = next(at for at, (name, _) in enumerate(every) if name.startswith("opt/sample/data/2/")) + 100
    rotated = every[begin:] + every[:begin]
    scattered = list(every)
    random.Random("scattered").shuffle(scattered)
    return {
        "0": [],
        "6-in-order": _share(rotated, 0.064 * total),
        "6-scattered": _share(scattered, 0.064 * total),
        "25": _share(rotated, 0.25 * total),
        "100": every,
    }


def _share(files: Sequence[tuple[str, int]], wanted: float) -> list[tuple[str, int]]:
    taken, chosen = 0, []
    for name, size in files:
        if taken >= wanted:
            break
        chosen.append((name, size))
        taken += size
    return chosen


def made() -> dict[str, Made]:
    """What can be started, by name: `read-` and the pattern for the first of the images."""
    found = {}
    for pattern, files in reads().items():
        read = (
            f"echo {STARTED} && xargs -n 64 cat < /opt/reads/{pattern} > /dev/null && echo {READY} && {KEEP}"
        )
        needed = sum(size for _, size in files)
        found[f"read-{pattern}"] = Made(pattern, "bench-reads", ("/bin/sh", "-c", read), needed)
    modules = "numpy, pandas, scipy.linalg, scipy.stats, sklearn.linear_model"
    imported = f"import {modules}; print('{READY}', flush=True)"
    # Without its application directory, which is below the wheels here, it starts but serves no page.
    notebook = f"--no-browser --allow-root --LabApp.app_dir=/{PACKAGES}/share/jupyter/lab"
    programs = {
        "python": (f'python3 -c "{imported}" && {KEEP}', READY),
        "notebook": (f"exec python3 -m jupyterlab {notebook}", "is running at"),
        "jvm": (f"java -version && echo {READY} && {KEEP}", READY),
        "static": (f"/bin/kubectl version --client && echo {READY} && {KEEP}", READY),
        "small-files": (f"xargs cat < /opt/reads/small > /dev/null && echo {READY} && {KEEP}", READY),
    }
    for name, (program, ready) in programs.items():
        command = ("/bin/sh", "-c", f"echo {STARTED} && {program}")
        found[name] = Made(name, f"bench-{name}", command, ready=ready)
    idle = ("/bin/sh", "-c", f"echo {STARTED} && echo {READY} && {KEEP}")
    found["large"] = Made("large", "bench-large", idle, needed_bytes=0)
    return found


def provide(wanted: Sequence[Made], say: Callable[[str], None]) -> None:
    """Have the images of these in the running lab's registry; made once, kept in the cache."""
    for repository in dict.fromkeys(entry.repository for entry in wanted):
        for tag in (PLAIN, *SPANS):
            if not _is_there(repository, tag):
                say(f"image {repository}:{tag}: being made, unless it is in the cache")
                layout = _plain(repository) if tag == PLAIN else _indexed(repository, tag)
                _push(layout, f"{REGISTRY}/{repository}:{tag}")


def compressed_bytes(entry: Made) -> int:
    """Bytes of the layers of its image, as the registry has it."""
    index = _manifest(entry.repository, next(iter(SPANS)))
    # Beside it stands SOCI's index.
    image = next(found for found in index["manifests"] if INDEX in found.get("annotations", {}))
    return sum(layer["size"] for layer in _manifest(entry.repository, image["digest"])["layers"])


def _is_there(repository: str, tag: str) -> bool:
    try:
        return bool(_manifest(repository, tag))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise LabError(f"the registry answers {error.code} for {repository}:{tag}") from error


def _manifest(repository: str, reference: str) -> dict[str, Any]:
    accept = f"{images.INDEX_TYPE}, {images.MANIFEST_TYPE}"
    url = f"http://{REGISTRY}/v2/{repository}/manifests/{reference}"
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=5) as answer:
        return json.load(answer)


def _key(repository: str) -> str:
    digest = hashlib.sha256(repository.encode())
    for path in (Path(__file__), HERE / "images.py", *WHEELS.values()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _plain(repository: str) -> Path:
    """The image's layout without an index."""

    def make(directory: Path) -> None:
        images.write_layout(directory, LAYERS[repository](), {"Env": [images.DEFAULT_PATH]})

    return cached(f"{repository}-{_key(repository)}", make)


def _indexed(repository: str, span: str) -> Path:
    def make(directory: Path) -> None:
        run(convert(_plain(repository), directory, SPANS[span]))

    key = hashlib.sha256((_key(repository) + binaries.target("soci").key()).encode()).hexdigest()[:16]
    return cached(f"{repository}-{span}-{key}", make)


def convert(source: Path, target: Path, span_bytes: int) -> list[str]:
    """The command that makes of a layout one with a SOCI v2 index, without containerd."""
    options = ["--standalone", "--format", "oci-dir", "--span-size", str(span_bytes)]
    return [str(binaries.build("soci") / "soci"), "convert", *options, str(source), str(target)]


def _programs(files: dict[str, bytes]) -> images.Layer:
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    applets = run([str(busybox), "--list"]).split()
    return images.programs_layer(busybox.read_bytes(), applets, files)


def _reads_layers() -> list[images.Layer]:
    lists = {f"opt/reads/{name}": _list(f"/{path}" for path, _ in files) for name, files in reads().items()}
    return [_programs(lists), *(images.sample_layer(number) for number in range(1, images.SAMPLE_LAYERS + 1))]


def _python_layers(name: str) -> list[images.Layer]:
    def install(directory: Path) -> None:
        uv = str(REPOSITORY / ".venv/bin/uv")
        options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--python-version", "3.11"]
        run([uv, "pip", "install", *options, "--target", str(directory), "--requirement", str(WHEELS[name])])

    target = cached(f"wheels-{_key(f'bench-{name}')}", install)
    # Not the layer of the installer's image, which is on every node: no start would be a cold one.
    return [images.tree_layer(base.root("workload", PYTHON_ROOT)), _below(PACKAGES, target)]


def _jvm_layers() -> list[images.Layer]:
    return [images.tree_layer(base.root("jvm", JVM_PACKAGES))]


def _static_layers() -> list[images.Layer]:
    kubectl = (binaries.build("kubernetes") / "kubectl").resolve().read_bytes()
    return [_programs({}), lambda archive: images.add_file(archive, "bin/kubectl", kubectl, 0o755)]


def _small_files_layers() -> list[images.Layer]:
    generator = random.Random("small files")
    names = [f"opt/small/{number % 200:03}/{number:05}" for number in range(SMALL_FILES)]

    def add(archive: tarfile.TarFile) -> None:
        content = random.Random("small content")
        for name in sorted(names):
            images.add_file(archive, name, content.randbytes(content.randrange(1 << 10, 4 << 10)))

    chosen = generator.sample(names, SMALL_FILES_READ)
    return [_programs({"opt/reads/small": _list(f"/{name}" for name in chosen)}), add]


def _large_layers() -> list[images.Layer]:
    def layer(number: int) -> images.Layer:
        def add(archive: tarfile.TarFile) -> None:
            generator = random.Random(f"large {number}")
            for file in range(LARGE_FILES):
                half = generator.randbytes(LARGE_FILE_BYTES // 2)
                images.add_file(archive, f"opt/large/{number}/{file:02}", half + bytes(len(half)))

        return add

    return [_programs({}), *map(layer, range(LARGE_LAYERS))]


LAYERS: dict[str, Callable[[], list[images.Layer]]] = {
    "bench-reads": _reads_layers,
    "bench-python": lambda: _python_layers("python"),
    "bench-notebook": lambda: _python_layers("notebook"),
    "bench-jvm": _jvm_layers,
    "bench-static": _static_layers,
    "bench-small-files": _small_files_layers,
    "bench-large": _large_layers,
}


def _list(paths) -> bytes:
    return "".join(f"{path}\n" for path in paths).encode()


def _below(folder: str, root: Path) -> images.Layer:
    """The layer that holds a directory tree below a folder."""

    def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    return lambda archive: archive.add(root, folder, filter=normal)


def _push(layout: Path, reference: str) -> None:
    options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", "--all"]
    run(["skopeo", "copy", *options, f"oci:{layout}", f"docker://{reference}"])

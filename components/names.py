"""Names that several components use: of what is in the cluster, of Docker Hub, and of images."""

INSTALLER = "soci-installer"
"""Of the DaemonSet and of what belongs to it; also the label app.kubernetes.io/name of its pods."""
PULL_SECRET = f"{INSTALLER}-registries"
"""Of the Secret with which the installer's image is pulled, when credentials for it are set."""
DEFAULT_NAMESPACE = "soci-system"
"""Of the installer, when nothing else is set."""
IMAGE_INDEX = "soci-index"
"""Of the service account of ImageIndex, for trust policies and Pod Identity; also the label
app.kubernetes.io/name of its pods."""
INDEX_NAMESPACE = IMAGE_INDEX
"""Of ImageIndex, when nothing else is set."""
DOMAIN = "soci-cluster.io"
"""Before the slash of each label, annotation and taint of this program."""
VERSION_LABEL = f"{DOMAIN}/version"
"""Of a node: the version of SOCI that is installed and verified there."""
STARTUP_TAINT = f"{DOMAIN}/not-ready"
"""Of a node that waits for SOCI; the installer lifts it."""

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's key in a Docker configuration, whatever its images are called by."""
DOCKER_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
"""The hosts by which it is called."""


def cluster_wide(namespace: str) -> str:
    """The name of what an installer has outside of its namespace: another one for each namespace, so that
    several installers live on one cluster."""
    return INSTALLER if namespace == DEFAULT_NAMESPACE else f"{INSTALLER}-{namespace}"


def full_name(image: str) -> str:
    """An image's name with its registry; Docker Hub's is left out by who writes `nginx:1`."""
    first, slash, rest = image.partition("/")
    if not slash:
        return f"docker.io/library/{image}"
    if first in DOCKER_HUB_NAMES:
        return f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    return image if is_host(first) else f"docker.io/{image}"


def is_host(first: str) -> bool:
    """Whether the first part of an image's name is a registry."""
    return "." in first or ":" in first or first == "localhost"


def in_containerd(image: str) -> str:
    """An image's name as containerd has it (distribution's reference.ParseDockerRef)."""
    name, at, digest = full_name(image).partition("@")
    before, slash, last = name.rpartition("/")
    repository, colon, _ = last.partition(":")
    if at:
        return f"{before}{slash}{repository}@{digest}"
    return name if colon else f"{name}:latest"

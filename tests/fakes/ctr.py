"""ctr, containerd's own client, as the agent calls it: at a containerd with some images and layers."""

import json
from collections.abc import Sequence

from agent.host import Result


class FakeCtr:
    """Answers ``env … ctr --namespace k8s.io …``. Calls that it does not know fail."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}  # by how a call begins; before anything below
        self.fails: set[str] = set()  # how calls begin that fail, whatever they print
        self.is_away = False  # containerd, which ctr then has nothing of
        self.images: list[str] = []  # lines of `images check`
        self.content: dict[str, object] = {}  # digest to JSON
        self.labels: dict[str, dict[str, str]] = {}  # of what `content ls` lists, by digest
        self.containers: dict[str, tuple[str, str]] = {}  # each with its pod and its image
        self.snapshots: list[str] = []  # of layers, "name [parent]"
        self.active: list[str] = []  # of containers, "name parent"
        self.usage: dict[str, str] = {}  # of snapshots, "size inodes"
        self.gets = 0  # of content

    def add(self, name: str, state: str, unpacked: bool = True, digest: str = "index") -> None:
        """Let containerd know an image by this name; ``state`` as `images check` has it."""
        self.images.append(f"{name} type {digest} {state} (1/3) 1.0 KiB/2.0 MiB {str(unpacked).lower()}\n")

    def __call__(self, command: Sequence[str], text: str) -> Result:
        words = list(command[command.index("--namespace") + 2 :])
        line = " ".join(words)
        output = None if self.is_away else self._output(words, line)
        if output is None or line.startswith(tuple(self.fails)):
            return Result(1, output or "", "no")
        return Result(0, output, "")

    def _output(self, words: list[str], line: str) -> str | None:
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer
        match words:
            case ["images", "check", *_]:
                return "REF TYPE DIGEST STATUS SIZE UNPACKED\n" + "".join(self.images)
            case ["content", "get", digest]:
                self.gets += 1
                return json.dumps(self.content[digest]) if digest in self.content else None
            case ["images", "ls"]:
                return "REF TYPE DIGEST SIZE PLATFORMS LABELS\n" + "".join(self.images)
            case ["content", "ls"]:
                lines = [
                    f"{blob}\t1kB\t3 hours\t{','.join(f'{key}={value}' for key, value in labels.items())}\n"
                    for blob, labels in self.labels.items()
                ]
                return "".join(["DIGEST\tSIZE\tAGE\tLABELS\n", *lines])
            case ["containers", "ls", "-q", *_]:
                return "".join(f"{container}\n" for container in self.containers)
            case ["containers", "ls"]:
                lines = [f"{container} {image} runc\n" for container, (_, image) in self.containers.items()]
                return "".join(["CONTAINER IMAGE RUNTIME\n", *lines])
            case ["containers", "info", container] if container in self.containers:
                pod, _ = self.containers[container]
                labels = {"io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "default"}
                return json.dumps({"Labels": labels})
            case ["snapshots", "--snapshotter", _, "ls"]:
                lines = [f"{line} Committed\n" for line in self.snapshots]
                return "".join(["KEY PARENT KIND\n", *lines, *(f"{line} Active\n" for line in self.active)])
            case ["snapshots", "--snapshotter", _, "usage", "-b", *keys]:
                lines = [f"{key} {self.usage[key]}\n" for key in keys if key in self.usage]
                return "".join(["KEY SIZE INODES\n", *lines])
            case ["version"]:
                return ""
        return None

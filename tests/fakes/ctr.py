"""ctr, containerd's own client, as the agent calls it: at a containerd with some images and layers."""

import json
from collections.abc import Sequence

from agent.host import Result


class FakeCtr:
    """Answers ``env … ctr --namespace k8s.io …``. Calls that it does not know fail."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}  # by how a call begins; before anything below
        self.fails: set[str] = set()  # how calls begin that fail, whatever they print
        self.images: list[str] = []  # lines of `images check`
        self.content: dict[str, object] = {}  # digest to JSON
        self.containers: list[str] = []
        self.snapshots: list[str] = []  # "name [parent]"
        self.usage = "KEY SIZE INODES\n"
        self.gets = 0  # of content

    def add(self, name: str, state: str, unpacked: bool = True, digest: str = "index") -> None:
        """Let containerd know an image; ``state`` as `images check` has it."""
        self.images.append(f"{name} type {digest} {state} (1/3) 1.0 KiB/2.0 MiB {str(unpacked).lower()}\n")

    def __call__(self, command: Sequence[str], text: str) -> Result:
        words = list(command[command.index("--namespace") + 2 :])
        line = " ".join(words)
        output = self._output(words, line)
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
            case ["containers", "ls", "-q", *_]:
                return "".join(f"{container}\n" for container in self.containers)
            case ["snapshots", "--snapshotter", _, "ls"]:
                return "".join(f"{line} Committed\n" for line in ("KEY PARENT", *self.snapshots))
            case ["snapshots", "--snapshotter", _, "usage", *_]:
                return self.usage
        return None

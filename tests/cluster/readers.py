"""Pods that read from lazily loaded layers without end, and count."""

import re

from tests.waiting import wait_for

# Every read opens its file anew, which goes to the daemon each time.
READER = """
reads=0 errors=0
while :; do
  for file in /opt/sample/data/*/*; do
    if head -c 4096 "$file" >/dev/null; then reads=$((reads + 1)); else errors=$((errors + 1)); fi
    if [ $((reads % 20)) = 0 ] || [ $errors -gt 0 ]; then echo "reads=$reads errors=$errors"; fi
    usleep 30000
  done
done
"""


class Readers:
    """Pods that read in loops, and what they have counted."""

    def __init__(self, api, names: list[str]) -> None:
        self.api = api
        self.names = names

    def counts(self) -> dict[str, tuple[int, int]]:
        """Reads and errors so far of each pod."""
        counted = {}
        for name in self.names:
            log = self.api.read_namespaced_pod_log(name, "default", tail_lines=1)
            found = re.fullmatch(r"reads=(\d+) errors=(\d+)", log.strip())
            counted[name] = (int(found[1]), int(found[2])) if found else (0, 0)
        return counted

    def must_go_on(self) -> None:
        """Each pod reads on, without having met an error, in its first container."""
        before = self.counts()

        def all_read() -> bool:
            now = self.counts()
            assert {name: errors for name, (_, errors) in now.items()} == dict.fromkeys(self.names, 0)
            return all(now[name][0] > before[name][0] + 40 for name in self.names)

        wait_for(all_read, 60, f"further reads beyond {before}")
        for name in self.names:
            (status,) = self.api.read_namespaced_pod(name, "default").status.container_statuses
            assert (status.ready, status.restart_count) == (True, 0)

    def delete(self) -> None:
        for name in self.names:
            self.api.delete_namespaced_pod(name, "default", grace_period_seconds=0)

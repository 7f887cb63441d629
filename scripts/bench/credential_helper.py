"""What the credential helper takes: out of its cache, and beside the plugin's own time.

Needs root and nothing of the lab: the plugin is a stand-in that sleeps as long as a call of ECR's takes.
Limits (docs/performance.md): warm 30 ms, cold 300 ms beyond the plugin.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HELPER = REPOSITORY / "scripts" / "installer" / "docker-credential-soci-cluster"
HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
WARM_MILLISECONDS, COLD_MILLISECONDS = 30.0, 300.0
PLUGIN = """\
#!/bin/sh
read -r request
sleep {seconds}
printf '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",'
printf '"cacheKeyType":"Registry","cacheDuration":"6h0m0s","auth":{{"{host}":'
printf '{{"username":"AWS","password":"{secret}"}}}}}}'
"""


def furnish(folder: Path, seconds: float) -> None:
    """The helper, its list, and a plugin that takes so many seconds and gives a secret as long as ECR's."""
    shutil.copy(HELPER, folder)
    plugin = folder / "plugin"
    plugin.write_text(PLUGIN.format(seconds=seconds, host=HOST, secret="x" * 2600))
    plugin.chmod(0o755)
    lines = (
        "provider plugin",
        f"executable {plugin}",
        "apiVersion v1",
        "match *.dkr.ecr.*.amazonaws.com",
        "end",
    )
    (folder / "providers").write_text("\n".join(lines) + "\n")


def milliseconds(command: list[str], folder: Path) -> float:
    """The time of one call that has to succeed."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "SOCI_CLUSTER_ROOT": str(folder),
        "HOME": str(folder),
    }
    started = time.perf_counter()
    subprocess.run(command, input=HOST.encode(), env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="calls of each kind (default 20)")
    parser.add_argument(
        "--plugin-seconds", type=float, default=0.2, help="what the plugin takes (default 0.2)"
    )
    options = parser.parse_args()
    failed = False
    for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]):
        if not shutil.which(shell[0]):
            print(f"{shell[0]:<10}not here")
            continue
        with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
            folder = Path(place)
            furnish(folder, options.plugin_seconds)
            call = [*shell, str(folder / HELPER.name), "get"]
            cold, warm, own = [], [], []
            for _ in range(options.repetitions):
                shutil.rmtree(folder / "run", ignore_errors=True)
                own.append(milliseconds([str(folder / "plugin")], folder))
                cold.append(milliseconds(call, folder))
                warm.append(milliseconds(call, folder))
        plugin, with_helper, kept = (statistics.median(times) for times in (own, cold, warm))
        print(
            f"{shell[0]:<10}warm {kept:6.1f} ms, cold {with_helper:6.1f} ms, "
            f"the plugin alone {plugin:6.1f} ms: {with_helper - plugin:+.1f} ms"
        )
        failed = failed or kept > WARM_MILLISECONDS or with_helper - plugin > COLD_MILLISECONDS
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

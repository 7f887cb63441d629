#!/usr/bin/env python3
"""The environment in which `pulumi` runs this project on a machine that may not have Pulumi.

Where the machine has the Pulumi CLI with its Python language host, and plugins in ~/.pulumi/plugins, those
are used. For what is missing: the CLI is built from the published Go module, and the language host and the
kubernetes, aws and eks plugins, which no package registry carries, are the stand-ins of this directory.

Usage: engine.py env [HOME]     print `export NAME=value` lines for a shell
                                (HOME: <repository>/.lab/pulumi when not given)
"""

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from binaries import build  # noqa: E402 (found through the path above)
from settings import REPOSITORY, cache_directory  # noqa: E402

STAND_INS = ("kubernetes", "aws", "eks")
FETCH_SECONDS = 60


def prepare(home: Path, genuine: Collection[str] = STAND_INS) -> dict[str, str]:
    """Return the environment variables with which `pulumi` works, once everything they name is in place.

    home becomes PULUMI_HOME and keeps the stacks' state. genuine names the plugins of which the user's own
    are taken where there are any. The passphrase only shields the lab's own throw-away state. Raises LabError
    when the CLI has to be built and cannot.
    """
    programs = command_line()
    link_plugins(home / "plugins", genuine)
    (home / "state").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE": "lab",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }


def command_line() -> Path:
    """Return the directory of CLI and Python language host: the machine's own, or one in the cache."""
    installed = shutil.which("pulumi")
    if installed and shutil.which("pulumi-language-python", path=Path(installed).parent):
        return Path(installed).parent
    pulumi = Path(installed) if installed else build("pulumi") / "pulumi"
    text = launcher("language_host.py")
    key = hashlib.sha256(f"{pulumi}{pulumi.stat().st_mtime_ns}{text}".encode()).hexdigest()[:16]
    directory = cache_directory() / "engine" / key
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "pulumi").exists():
        # The CLI looks for the host beside its own file, so a symbolic link would not do.
        draft = directory / f".pulumi-{os.getpid()}"
        try:
            os.link(pulumi, draft)
        except OSError:
            shutil.copy2(pulumi, draft)
        draft.replace(directory / "pulumi")
    write_program(directory / "pulumi-language-python", text)
    return directory


def link_plugins(directory: Path, genuine: Collection[str] = STAND_INS) -> None:
    """Put every plugin that the installed packages ask for there: the user's real one, or a stand-in."""
    for name, version in required_plugins().items():
        place = directory / f"resource-{name}-v{version}"
        real = users_plugin(name, version)
        directory.mkdir(parents=True, exist_ok=True)
        if name in genuine and real.exists():
            if place.is_dir() and not place.is_symlink():  # a stand-in from before the user had it
                shutil.rmtree(place)
            if not place.exists():
                place.symlink_to(real)
        elif name in STAND_INS:
            place.mkdir(exist_ok=True)
            write_program(place / f"pulumi-resource-{name}", launcher(f"{name}_provider.py"))


def users_plugin(name: str, version: str) -> Path:
    """Return where the user's own Pulumi keeps that plugin, whether it is there or not."""
    return Path.home() / ".pulumi" / "plugins" / f"resource-{name}-v{version}"


def fetch_plugin(name: str) -> str:
    """Have the CLI fetch a plugin for the user unless it is there; return in words what will be used.

    On a machine without a way to Pulumi's plugins that is the stand-in, and the answer says so.
    """
    version = required_plugins()[name]
    if not users_plugin(name, version).exists():
        command = [command_line() / "pulumi", "plugin", "install", "resource", name, version]
        environment = {key: value for key, value in os.environ.items() if key != "PULUMI_HOME"}
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, env=environment, timeout=FETCH_SECONDS, check=False)
    if users_plugin(name, version).exists():
        return f"{name} {version}"
    return f"{name}: the lab's stand-in, because the true plugin cannot be fetched here"


def required_plugins() -> dict[str, str]:
    """Return {plugin: version} that the installed Python packages ask for in their pulumi-plugin.json."""
    found = {}
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("*/pulumi-plugin.json")):
        plugin = json.loads(path.read_text())
        if plugin.get("resource") and plugin.get("version"):
            found[plugin["name"]] = plugin["version"]
    return found


def launcher(script: str) -> str:
    """Return a shell script that runs one of the stand-ins with this interpreter, or by warm.py."""
    python, program = shlex.quote(sys.executable), shlex.quote(str(HERE / script))
    warm = f"${{SOCI_LAB_WARM:+-IS {shlex.quote(str(HERE / 'warm.py'))}}}"
    return f'#!/bin/sh\nexec {python} {warm} {program} "$@"\n'


def write_program(path: Path, text: str) -> None:
    """Write an executable file at once, so that a process starting meanwhile never sees half of it."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(text)
    draft.chmod(0o755)
    draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["env"])
    parser.add_argument("home", nargs="?", type=Path, default=REPOSITORY / ".lab" / "pulumi")
    arguments = parser.parse_args()
    for name, value in prepare(arguments.home.absolute()).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()

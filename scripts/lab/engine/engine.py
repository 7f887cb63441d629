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
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
STAND_INS = ("kubernetes", "aws", "eks")


def prepare(cache: Path, home: Path) -> dict[str, str]:
    """Return the environment variables with which `pulumi` works, once everything they name is in place.

    cache is for what outlives the lab (the CLI with its language host); home becomes PULUMI_HOME and keeps
    the stacks' state. The passphrase only shields the lab's own throw-away state. Raises LabError when the
    CLI has to be built and cannot.
    """
    programs = command_line(cache)
    link_plugins(home / "plugins")
    (home / "state").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{home}/state",
        "PULUMI_CONFIG_PASSPHRASE": "lab",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }


def command_line(cache: Path) -> Path:
    """Return the directory of the CLI and its Python language host: the machine's own, or one below cache."""
    installed = shutil.which("pulumi")
    if installed and shutil.which("pulumi-language-python", path=Path(installed).parent):
        return Path(installed).parent
    pulumi = Path(installed) if installed else built("pulumi") / "pulumi"
    text = launcher("language_host.py")
    key = hashlib.sha256(f"{pulumi}{pulumi.stat().st_mtime_ns}{text}".encode()).hexdigest()[:16]
    directory = cache / "engine" / key
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


def link_plugins(directory: Path) -> None:
    """Put every plugin that the installed packages ask for there: the user's real one, or a stand-in."""
    for name, version in required_plugins().items():
        place = directory / f"resource-{name}-v{version}"
        real = Path.home() / ".pulumi" / "plugins" / place.name
        directory.mkdir(parents=True, exist_ok=True)
        if real.exists() and not place.exists():
            place.symlink_to(real)
        elif name in STAND_INS and not real.exists():
            place.mkdir(exist_ok=True)
            write_program(place / f"pulumi-resource-{name}", launcher(f"{name}_provider.py"))


def required_plugins() -> dict[str, str]:
    """Return {plugin: version} that the installed Python packages ask for in their pulumi-plugin.json."""
    found = {}
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("*/pulumi-plugin.json")):
        plugin = json.loads(path.read_text())
        if plugin.get("resource") and plugin.get("version"):
            found[plugin["name"]] = plugin["version"]
    return found


def launcher(script: str) -> str:
    """Return a shell script that runs one of the stand-ins with this interpreter."""
    return f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(HERE / script))} "$@"\n'


def write_program(path: Path, text: str) -> None:
    """Write an executable file at once, so that a process starting meanwhile never sees half of it."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_text(text)
    draft.chmod(0o755)
    draft.replace(path)


def built(target: str) -> Path:
    """Return the directory of programs that scripts/lab/binaries.py builds for the target."""
    sys.path.insert(0, str(HERE.parent))
    from binaries import build

    return build(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["env"])
    parser.add_argument("home", nargs="?", type=Path, default=REPOSITORY / ".lab" / "pulumi")
    arguments = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "soci-cluster"
    for name, value in prepare(cache, arguments.home.absolute()).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()

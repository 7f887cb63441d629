"""Stand-in for `pulumi-language-python`, the Python language host that comes with the true Pulumi CLI.

It runs a program of a `runtime: python` project in a child process and says which plugins the installed
packages need. It does not create environments, install, type-check, debug or run Python plugins. Its outcome
and texts for exceptions, RunError, sys.exit and failed resources are those of the true host.
"""
# ruff: noqa: N802  (methods have the names of the gRPC protocol)

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import warm
from engine import required_plugins
from plugin import serve, to_python
from stubs import Empty, language_pb2, language_pb2_grpc, plugin_pb2

# The exit status of a program that has already told the user what is wrong; the engine then adds nothing.
ALREADY_SAID = 32


def python(info: language_pb2.ProgramInfo) -> list[str]:
    """Return the command that runs a script with the interpreter of the project's `virtualenv` option, else
    with the one that runs this host; where that is the same one, by warm.py if it serves."""
    folder = to_python(info.options).get("virtualenv")
    candidate = Path(info.root_directory, folder, "bin", "python") if folder else None
    if candidate and candidate.exists() and not candidate.parent.samefile(Path(sys.executable).parent):
        return [str(candidate)]
    return [sys.executable, *(["-IS", warm.__file__] if warm.VARIABLE in os.environ else [])]


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The part of the language protocol that preview, up, refresh and destroy use."""

    def __init__(self, engine_address: str) -> None:
        self.engine_address = engine_address
        self.programs: set[subprocess.Popen] = set()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo()

    def GetRequiredPackages(self, request, context):
        packages = [
            plugin_pb2.PackageDependency(name=name, kind="resource", version=f"v{version}")
            for name, version in required_plugins().items()
        ]
        return language_pb2.GetRequiredPackagesResponse(packages=packages)

    def About(self, request, context):
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    def InstallDependencies(self, request, context):
        yield language_pb2.InstallDependenciesResponse(stdout=b"Nothing to install: use `make setup`.\n")

    def Run(self, request, context):
        options = {
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization or "organization",
            "parallel": request.parallel,
            "preview": request.dryRun,
            "monitor_address": request.monitor_address,
            "engine_address": self.engine_address,
        }
        program = Path(request.info.program_directory, request.info.entry_point or ".").resolve()
        child = subprocess.Popen(
            [*python(request.info), str(Path(__file__).with_name("run_program.py")), str(program)],
            cwd=request.pwd,
            env={
                **os.environ,
                # Not by arguments: values can be secret, and arguments are readable by anybody.
                "PULUMI_CONFIG": json.dumps(dict(request.config)),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
                "SOCI_LAB_RUN": json.dumps(options),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
        )
        self.programs.add(child)
        context.add_callback(lambda: interrupt(child))
        status = child.wait()
        self.programs.discard(child)
        if status == ALREADY_SAID:
            return language_pb2.RunResponse(bail=True)
        error = f"program exited with non-zero exit code: {status}" if status else ""
        return language_pb2.RunResponse(error=error)

    def Cancel(self, request, context):
        for child in list(self.programs):
            interrupt(child)
        return Empty()


def interrupt(child: subprocess.Popen) -> None:
    """Ask a program that still runs to stop."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)


def main() -> None:
    address = next(argument for argument in sys.argv[1:] if not argument.startswith("-"))
    host = LanguageHost(address)
    serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server))


if __name__ == "__main__":
    main()

"""A Python process that has the large packages imported and forks for each process of the stand-ins.

A `pulumi` command starts five interpreters here, and most of their time is the import of the same packages.
Where SOCI_LAB_WARM names a socket, on which `warm.py` without arguments listens, the launchers of engine.py
start `warm.py SCRIPT ARGUMENTS…` in place of the script. It hands streams, environment, directory and
arguments over to the server, whose fork runs the script; it passes signals on, the fork ends with it, and it
ends with the fork's status. Only packages are imported beforehand, and never a module of this project.

For the tests: without the variable, each script has an interpreter of its own.
"""

import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

VARIABLE = "SOCI_LAB_WARM"
# pulumi first: after stubs.py, most of it would be hidden.
PACKAGES = (
    "pulumi",
    "pulumi.provider.server",
    "pulumi_aws.ec2",
    "pulumi_aws.eks",
    "pulumi_aws.iam",
    "pulumi_eks",
    "pulumi_kubernetes.apps.v1",
    "pulumi_kubernetes.batch.v1",
    "pulumi_kubernetes.core.v1",
    "pulumi_kubernetes.meta.v1",
    "pulumi_kubernetes.rbac.v1",
    "boto3",
    "kubernetes.config",
    "urllib3",
    "yaml",
)
SERVICES = ("ec2", "eks", "iam", "ssm", "sts")
LENGTH_BYTES = 4
LOOK_SECONDS = 2


def main() -> None:
    address = os.environ[VARIABLE]
    if len(sys.argv) == 1:
        serve(address)
    sys.exit(run(address, sys.argv[1:]))


def run(address: str, arguments: list[str]) -> int:
    """Have the server run a script with the streams and the environment of this process; return its end."""
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        request = {"arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}
        body = json.dumps(request).encode()
        socket.send_fds(server, [len(body).to_bytes(LENGTH_BYTES, "big")], [0, 1, 2])
        server.sendall(body)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        while not select.select([server], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != parent:
                return 1  # the engine was killed; the fork ends with the connection
        status = server.recv(1)
    return status[0] if status else 1


def serve(address: str) -> NoReturn:
    """Import the packages, then fork for each connection until this process is ended."""
    for name in PACKAGES:
        getattr(
            importlib.import_module(name), "__all__", ()
        )  # a lazy module of Pulumi's waits for a question
    _read_service_models()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no fork of this process is waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                os._exit(_attend(client))
            client.close()


def _read_service_models() -> None:
    """Have botocore parse its descriptions of AWS's services, which its default session keeps."""
    import boto3

    for service in SERVICES:
        boto3.client(
            service,
            region_name="eu-west-1",
            endpoint_url="http://127.0.0.1",
            aws_access_key_id="stand-in",
            aws_secret_access_key="stand-in",
        )


def _attend(client: socket.socket) -> int:
    """Run what the client asks for in a fork, pass the client's signals on, tell the client how it ended."""
    head, streams, *_ = socket.recv_fds(client, LENGTH_BYTES, 3)
    length = int.from_bytes(head, "big")
    request = json.loads(client.recv(length, socket.MSG_WAITALL))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        client.close()
        os._exit(_become(streams, **request))
    for stream in streams:
        os.close(stream)
    end = os.pidfd_open(child)
    while end not in select.select([client, end], [], [])[0]:
        number = client.recv(1)
        os.kill(child, number[0] if number else signal.SIGKILL)
        if not number:
            return 0
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.send(bytes([status if status >= 0 else 128 - status]))
    return 0


def _become(streams: list[int], arguments: list[str], environment: dict[str, str], directory: str) -> int:
    """Be the process that a fresh interpreter would have been; return its status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # A shell's background takes it from the server.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  (the server's keeps lines back)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    script = Path(arguments[0])
    sys.argv = arguments
    added = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(script.parent), *(folder for folder in added if folder)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:  # noqa: BLE001  (what an interpreter does with it)
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()

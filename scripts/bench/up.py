"""`make up`: a cluster, `pulumi up` on it, and what that gained. With KUBECONTEXT it is your own cluster."""

import argparse
import os
import shutil
import subprocess
import sys
import time

import kubecontext
import pod_start
from lab_client import (
    LAB_DIRECTORY,
    REPOSITORY,
    fetch_provider,
    kubernetes_api,
    lab,
    stack_environment,
)

HINT = f"""
Look around with KUBECONFIG={LAB_DIRECTORY / "kubeconfig"}. The stack is yours to try:
  scripts/lab/lab pulumi config set soci:version 0.16.0
  scripts/lab/lab pulumi up
`make down` removes it all."""


def pulumi(environment: dict[str, str], *arguments: str) -> None:
    """Run the Pulumi CLI in the project and let the user see it; raise CalledProcessError when it fails."""
    print(f"\n$ pulumi {' '.join(arguments)}", flush=True)
    subprocess.run(["pulumi", *arguments], check=True, cwd=REPOSITORY, env=environment)


def deploy() -> None:
    """Bring the lab up and deploy the `local` stack on it."""
    lab("up")
    print(f"Pulumi provider {fetch_provider()}", flush=True)
    environment = stack_environment()
    pulumi(environment, "up", "--yes", "--non-interactive", "--suppress-outputs")
    pulumi(environment, "stack", "output")


def deploy_to_lab() -> None:
    """Deploy to the lab and measure pod start on both kinds of nodes."""
    started = time.monotonic()
    deploy()
    install = pod_start.installs(kubernetes_api())
    for node, report in install.items():
        print(
            f"{node}: verified in {report['verified_s']:.1f} s, "
            f"containerd down {report['containerd_down_s']:.2f} s, "
            f"{report['containerd_restarts']} restart"
        )
    print(f"\nSOCI is on {len(install)} nodes after {time.monotonic() - started:.0f} s in all.\n")
    pod_start.run()
    print(HINT)


def deploy_to_context(context: str) -> None:
    """Deploy the `existing` stack to the cluster of the user's own kubeconfig context."""
    kubeconfig = kubecontext.kubeconfig(os.environ)
    try:
        kubecontext.require(context, kubeconfig)
    except kubecontext.NoContextError as error:
        sys.exit(f"make up KUBECONTEXT={context}: {error}")
    if not shutil.which("pulumi"):
        sys.exit(
            "make up KUBECONTEXT=…: the Pulumi CLI is not on PATH; install it and run `pulumi login` first"
        )
    pulumi(dict(os.environ), "stack", "select", "--create", "existing")
    pulumi(dict(os.environ), "config", "set", "soci:kubeconfig", kubeconfig, "--stack", "existing")
    pulumi(dict(os.environ), "config", "set", "soci:context", context, "--stack", "existing")
    pulumi(dict(os.environ), "up", "--stack", "existing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--context",
        help="deploy to this context of the kubeconfig that kubectl uses, instead of to the embedded lab",
    )
    arguments = parser.parse_args()
    try:
        deploy_to_context(arguments.context) if arguments.context else deploy_to_lab()
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"make up: {' '.join(map(str, error.cmd[:3]))} failed ({error.returncode}); why is said above"
        )


if __name__ == "__main__":
    main()

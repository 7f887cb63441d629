"""Serves the components to Pulumi programs in other languages (TypeScript, Go, YAML, …)."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Pulumi runs this directory itself; the package it holds is found from the directory above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from pulumi.provider.experimental import component_provider_host

    from components import EcrImageIndex, ImageIndex, SampleWorkload, SociCluster, SociInstaller

    component_provider_host(
        components=[SociCluster, SociInstaller, SampleWorkload, ImageIndex, EcrImageIndex],
        name="soci",
        version="0.3.0",
    )

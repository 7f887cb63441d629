"""The gRPC stubs of Pulumi's protocol, without `import pulumi` itself, which is 0.25 s in every plugin process.

Never import this where the Pulumi SDK is wanted as well.
"""

import importlib.util
import sys
import types
from pathlib import Path


def hide_package_code() -> None:
    """Put empty modules in place of `pulumi` and `pulumi.runtime`, so that only what is below them is loaded."""
    specification = importlib.util.find_spec("pulumi")
    assert specification and specification.submodule_search_locations, (
        "the Python package pulumi is not installed"
    )
    root = Path(next(iter(specification.submodule_search_locations)))
    for name, directory in (("pulumi", root), ("pulumi.runtime", root / "runtime")):
        module = types.ModuleType(name)
        module.__path__ = [str(directory)]
        sys.modules[name] = module


hide_package_code()

from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    errors_pb2,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

__all__ = [
    "engine_pb2",
    "engine_pb2_grpc",
    "errors_pb2",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]

"""The gRPC stubs of Pulumi's protocol, without `import pulumi` itself, which is 0.25 s in every process.

Where the Pulumi SDK is wanted as well, import it first.
"""

import importlib.util
import sys
import types
from pathlib import Path


def hide_package_code() -> None:
    """Put empty modules in place of `pulumi` and `pulumi.runtime`: only what is below them gets loaded."""
    specification = importlib.util.find_spec("pulumi")
    if specification is None or not specification.origin:
        raise ModuleNotFoundError("the Python package pulumi is not installed")
    root = Path(specification.origin).parent
    for name, directory in (("pulumi", root), ("pulumi.runtime", root / "runtime")):
        module = types.ModuleType(name)
        module.__path__ = [str(directory)]
        sys.modules[name] = module


if "pulumi" not in sys.modules:
    hide_package_code()

# The package `protobuf` comes without types: ty cannot see these classes.
from google.protobuf.empty_pb2 import Empty  # noqa: E402  # ty: ignore[missing-module-member]
from google.protobuf.struct_pb2 import ListValue, Struct  # noqa: E402  # ty: ignore[missing-module-member]
from pulumi.runtime.proto import (  # noqa: E402
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

__all__ = [
    "Empty",
    "ListValue",
    "Struct",
    "engine_pb2",
    "engine_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]

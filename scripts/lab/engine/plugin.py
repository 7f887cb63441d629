"""What the stand-in plugins share: the server, property values, messages to the engine.

Everything here follows Pulumi's published protocol (the .proto files behind `pulumi.runtime.proto`); nothing
is taken from the true plugins.
"""
# ruff: noqa: N802  (methods have the names of the gRPC protocol)

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from engine import required_plugins
from parent import end_with_parent
from stubs import (
    Empty,
    ListValue,
    Struct,
    engine_pb2,
    engine_pb2_grpc,
    plugin_pb2,
    provider_pb2,
    provider_pb2_grpc,
    status_pb2,
)

# The marker that Pulumi's protocol puts where a value is not known before the update.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# The key by which that protocol tells a wrapped secret from a map; its value is under "value".
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
MESSAGE_LIMIT = 400 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
]


def to_python(value: Any) -> Any:
    """Return a protobuf value as plain Python: whole numbers become int, and secrets are unwrapped."""
    if isinstance(value, Struct):
        if SIGNATURE in value.fields and "value" in value.fields:
            return to_python(value.fields["value"])
        return {key: to_python(item) for key, item in value.fields.items()}
    if isinstance(value, ListValue):
        return [to_python(item) for item in value.values]
    kind = value.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    item = getattr(value, kind)
    if kind == "number_value":
        return int(item) if item == int(item) else item
    return to_python(item) if kind in ("struct_value", "list_value") else item


def to_struct(value: dict[str, Any]) -> Struct:
    """Return plain Python as a protobuf Struct."""
    struct = Struct()
    struct.update(value)
    return struct


def as_secret(value: Any) -> dict[str, Any]:
    """Return a value as the protocol wraps one that is secret."""
    return {SIGNATURE: SECRET_SIGNATURE, "value": value}


def has_unknown(value: Any) -> bool:
    """Say whether some part of the value is only known once the update runs."""
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(has_unknown(item) for item in value)
    return value == UNKNOWN


def differences(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Return {path: "ADD" | "UPDATE" | "DELETE"} for what differs; an absent map equals an empty one."""
    if isinstance(old, dict) or isinstance(new, dict):
        if not isinstance(old or {}, dict) or not isinstance(new or {}, dict):
            return {path: "UPDATE"}
        old, new = old or {}, new or {}
        found = {}
        for key in sorted({*old, *new}):
            step = f'{path}["{key}"]' if "." in key else f"{path}.{key}" if path else key
            found |= differences(old.get(key), new.get(key), step)
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            found |= differences(before, after, f"{path}[{index}]")
        return found
    if old == new:
        return {}
    return {path: "ADD" if old is None else "DELETE" if new is None else "UPDATE"}


def diff_response(
    changes: dict[str, str], replaces: set[str], delete_first: bool
) -> provider_pb2.DiffResponse:
    """Return the answer to Diff; replaces are those of the changed paths that an update cannot change."""
    response = provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if changes else provider_pb2.DiffResponse.DIFF_NONE,
        replaces=sorted(replaces),
        diffs=sorted({path.split(".")[0].split("[")[0] for path in changes}),
        deleteBeforeReplace=bool(replaces) and delete_first,
        hasDetailedDiff=True,
    )
    for path, kind in changes.items():
        name = kind + ("_REPLACE" if path in replaces else "")
        response.detailedDiff[path].kind = provider_pb2.PropertyDiff.Kind.Value(name)
        response.detailedDiff[path].inputDiff = True
    return response


class InitializationError(Exception):
    """The resource exists, but did not become what it should: state is kept and the reason is shown."""

    def __init__(
        self, message: str, identifier: str, outputs: dict, inputs: dict, details: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.detail = provider_pb2.ErrorResourceInitFailed(
            id=identifier,
            properties=to_struct(outputs),
            reasons=[message, *details],
            inputs=to_struct(inputs),
        )


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """A resource provider without resources: configuration, cancellation, messages, error details."""

    def __init__(self, version: str, engine_address: str | None) -> None:
        self.version = version
        self.cancelled = threading.Event()
        self.engine = None
        if engine_address:
            self._connect(engine_address)

    def _connect(self, address: str) -> None:
        self.engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options=OPTIONS))

    def say(self, urn: str, message: str, severity: str = "INFO", passing: bool = True) -> None:
        """Show a message at the resource; a passing one is a status line that the next one replaces."""
        if self.engine:
            number = engine_pb2.LogSeverity.Value(severity)
            request = engine_pb2.LogRequest(severity=number, message=message, urn=urn, ephemeral=passing)
            try:
                self.engine.Log(request, timeout=5)
            except grpc.RpcError:
                pass  # The engine is going away; there is nobody to tell.

    def configure(self, settings: dict[str, Any]) -> None:
        """Take the provider resource's inputs; overridden by each provider."""

    def Attach(self, request, context):
        self._connect(request.address)
        return Empty()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=self.version)

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def Configure(self, request, context):
        self.cancelled.clear()
        self.configure(to_python(request.args))
        # Secrets are not accepted: the engine then hands over plain values and marks by itself whatever comes
        # back at the same place as secret.
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True)

    def Cancel(self, request, context):
        self.cancelled.set()
        return Empty()


class ErrorDetails(grpc.ServerInterceptor):
    """Turns an exception of a provider method into the status that the engine shows, with its details."""

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None:
            return None

        def answer(request, context):
            try:
                return handler.unary_unary(request, context)
            except InitializationError as error:
                status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
                status.details.add().Pack(error.detail)
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
                context.abort(grpc.StatusCode.UNKNOWN, str(error))
            except Exception as error:
                if context.code() is not None:
                    raise
                if os.environ.get("SOCI_LAB_DEBUG"):
                    traceback.print_exc()
                context.abort(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


def serve(add: Any) -> None:
    """Serve on a free loopback port, printed as the engine expects, until the engine ends this process.

    add(server) registers the service.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=32), interceptors=[ErrorDetails()], options=OPTIONS)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # The engine ends its plugins with this signal; there is nothing to tidy up.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    end_with_parent()
    print(port, flush=True)
    server.wait_for_termination()


def serve_provider(kind: type[Provider], package: str) -> None:
    """Serve a provider whose version is that of the installed Python package."""
    address = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    provider = kind(required_plugins()[package], address)
    serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server))

"""Stand-in for the pulumi-aws plugin (`pulumi-resource-aws`), which talks to a moto server, never to AWS.

aws_resources.py has the resource types, aws_refusals.py what AWS refuses of them, aws_functions.py the
functions, aws_world.py what all ask and a test can change, eks_nodes.py the nodes. Never compared with the
true plugin, whose rules were read, not run: a green test shows that program and engine agree, not that AWS
would.

AWS_ENDPOINT_URL    the moto server; without it the stand-in refuses to do anything
SOCI_LAB_AWS        a JSON file with what moto does not know (see aws_world.py)
SOCI_LAB_EKS        a kubeconfig: EKS clusters get its API server as their endpoint, and node groups register
                    their nodes there, with their labels and taints
"""
# ruff: noqa: N802  (methods have the names of the gRPC protocol)

import aws_functions
import aws_world
from aws_resources import GONE, kind_of, unknown
from plugin import (
    Provider,
    diff_response,
    differences,
    has_unknown,
    serve_provider,
    to_python,
    to_struct,
)
from stubs import Empty, provider_pb2


class Aws(Provider):
    """Hands each resource to its type and each function to its own."""

    def configure(self, settings):
        aws_world.use_region(settings.get("region"))

    def DiffConfig(self, request, context):
        changes = differences(to_python(request.old_inputs), to_python(request.news))
        return diff_response(changes, {path for path in changes if path == "region"}, False)

    def Invoke(self, request, context):
        answer = aws_functions.call(request.tok, to_python(request.args))
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(to_struct(answer))  # the field has the name of a keyword
        return response

    def Check(self, request, context):
        kind, old, new = kind_of(request.type), to_python(request.olds), to_python(request.news)
        name = kind.name_property
        if name and not new.get(name) and not new.get(f"{name}Prefix"):
            new[name] = old.get(name) or f"{request.name}-{request.randomSeed[:4].hex()[:7]}"
        return provider_pb2.CheckResponse(inputs=to_struct(new))

    def Diff(self, request, context):
        kind = kind_of(request.type)
        changes = kind.changes(to_python(request.old_inputs), to_python(request.news))
        return diff_response(changes, kind.replaces(changes), False)

    def Create(self, request, context):
        kind, inputs = kind_of(request.type), to_python(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=to_struct(unknown(inputs, kind.computed)))
        aws_world.check_accepted(request.type, "creating")
        identifier = kind.identifier(request.name, inputs)
        outputs = kind.create(identifier, inputs)
        return provider_pb2.CreateResponse(id=outputs.pop("id", identifier), properties=to_struct(outputs))

    def Update(self, request, context):
        kind, inputs, state = kind_of(request.type), to_python(request.news), to_python(request.olds)
        if request.preview or has_unknown(inputs):
            changes = kind.changes(to_python(request.old_inputs), inputs)
            outputs = unknown({**state, **inputs}, kind.recomputed(changes))
        else:
            aws_world.check_accepted(request.type, "updating")
            outputs = kind.update(request.id, state, inputs)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Read(self, request, context):
        kind = kind_of(request.type)
        state, inputs = to_python(request.properties), to_python(request.inputs)
        aws_world.check_credentials(f"reading {request.type}")
        try:
            if not state:
                state = inputs = kind.found(request.id)
            outputs = kind.read(request.id, state)
        except GONE:
            return provider_pb2.ReadResponse()
        # What changed behind the program's back shows in the inputs, as with the true plugin: the next `up`
        # compares the program with them.
        drifted = {key: outputs[key] for key in inputs if key in outputs and outputs[key] != state.get(key)}
        return provider_pb2.ReadResponse(
            id=request.id, properties=to_struct(outputs), inputs=to_struct({**inputs, **drifted})
        )

    def Delete(self, request, context):
        aws_world.check_accepted(request.type, "deleting")
        try:
            kind_of(request.type).delete(request.id, to_python(request.properties))
        except GONE as error:
            if "NotFound" not in str(error) and "NoSuchEntity" not in str(error):
                raise
        return Empty()


if __name__ == "__main__":
    serve_provider(Aws, "aws")

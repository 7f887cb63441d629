"""soci:imagePullSecrets: what is taken, and that no credential is told, or held in plain, anywhere."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc

from components import SampleWorkload, SociCluster, SociConfigError, image_pull_secrets
from components.configuration import from_arguments, from_config
from components.image_pull_secrets import Login, docker_config, read
from components.settings import plain_arguments
from components.values import RefusedError
from tests.unit.mocks import DIGESTS, Recorder, install

PASSWORD = "hunter2: and\tmore"
LOGIN = {"registry": "registry.corp:5000", "username": "robot$soci", "password": PASSWORD}
ENTRIES = ["regcred", LOGIN]


def refusal(value: Any) -> str:
    with pytest.raises(SociConfigError) as raised:
        from_config({"soci:imagePullSecrets": value if isinstance(value, str) else json.dumps(value)})
    return str(raised.value)


def test_names_and_credentials_are_taken_and_survive_the_way_through_arguments() -> None:
    settings = from_config({"soci:imagePullSecrets": json.dumps(ENTRIES)})
    assert settings.image_pull_secrets == (
        "regcred",
        Login("registry.corp:5000", "robot$soci", PASSWORD),
    )
    assert from_arguments(plain_arguments(settings)) == settings


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (f"{PASSWORD}\n", PASSWORD),
        (f" {PASSWORD}\r\n", f" {PASSWORD}"),
        (12345, "12345"),
    ],
)
def test_a_password_is_what_was_written_without_the_end_of_its_line(written: Any, meant: str) -> None:
    (login,) = read([LOGIN | {"password": written}])
    assert isinstance(login, Login)
    assert login.password == meant


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("hunter2", "must be a list, not a text"),
        (
            [["hunter2"]],
            "entry 0: must be the name of a Secret, or an object with registry, username, password",
        ),
        ([None], "entry 0: must be the name of a Secret"),
        (["Hunter2!"], "entry 0: not the name of a Secret"),
        ([{"name": "regcred"}], "entry 0: a Secret that others make is given by its name alone, as text"),
        ([{"registry": "a"}], "entry 0: must hold registry, username, password, and nothing else"),
        ([LOGIN | {"email": "hunter2"}], "entry 0: must hold registry, username, password, and nothing else"),
        ([{"auths": {"hunter2": {}}}], "entry 0: must hold registry, username, password, and nothing else"),
        (["a", LOGIN | {"registry": "https://registry.corp"}], "entry 1: registry must have no http:// or"),
        ([LOGIN | {"registry": "registry.corp/hunter2:1"}], "entry 0: registry must be a host such as"),
        ([LOGIN | {"registry": "hunter2@registry.corp"}], "entry 0: registry must be a host such as"),
        ([LOGIN | {"registry": "  "}], "entry 0: registry is empty"),
        ([LOGIN | {"password": " \n"}], "entry 0: password is empty"),
        ([LOGIN | {"password": None}], "entry 0: password must be text, not null"),
        ([LOGIN | {"password": 1.5}], "entry 0: password must be text, and this is a number"),
        ([LOGIN | {"username": ""}], "entry 0: username is empty"),
        ([LOGIN | {"username": "a:hunter2"}], "entry 0: username must have no colon"),
        (["regcred", LOGIN, "regcred"], "entries 0 and 2 name the same Secret"),
        ([LOGIN, "regcred", LOGIN | {"username": "b"}], "entries 0 and 2 are for the same registry"),
        (
            [LOGIN | {"registry": "docker.io"}, LOGIN | {"registry": "index.docker.io"}],
            "entries 0 and 1 are for the same registry",
        ),
        (
            [LOGIN, image_pull_secrets.PULL_SECRET],
            "entry 1: soci-installer-registries is the Secret that is made",
        ),
    ],
)
@pytest.mark.parametrize("is_secret", [False, True])
def test_what_cannot_work_is_refused_in_one_line_and_nothing_of_it_is_told(
    value: Any, reason: str, is_secret: bool
) -> None:
    pulumi.runtime.set_all_config({}, ["soci:imagePullSecrets"] if is_secret else [])
    try:
        told = refusal(value)
    finally:
        pulumi.runtime.set_all_config({}, [])
    shown = "[secret]" if is_secret else "[not shown]"
    assert told.startswith(f"soci:imagePullSecrets {shown}: {reason}")
    assert "Remedy: pulumi config set --path 'soci:imagePullSecrets[0]' NAME" in told
    assert len(told.splitlines()) == 1
    for secret in ("hunter2", "Hunter2", "robot"):
        assert secret not in told


@pytest.mark.parametrize("key", ["imagePullSecret", "pullSecrets", "imagePullsecrets", "registryCredentials"])
def test_under_a_misspelt_key_nothing_of_it_is_told(key: str) -> None:
    with pytest.raises(SociConfigError) as raised:
        from_config({f"soci:{key}": json.dumps([LOGIN])})
    assert "there is no such setting" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_the_docker_configuration_is_as_kubectl_writes_it() -> None:
    auth = base64.b64encode(f"u:{PASSWORD}".encode()).decode()
    found = json.loads(
        docker_config([Login("registry.corp/team", "u", PASSWORD), Login("docker.io", "v", "w")])
    )
    assert found["auths"]["registry.corp/team"] == {"username": "u", "password": PASSWORD, "auth": auth}
    # The only name of Docker Hub that every kubelet knows.
    assert set(found["auths"]) == {"registry.corp/team", "https://index.docker.io/v1/"}


def decoded(secret: Any) -> Any:
    """The Docker configuration in the inputs of a Secret, which is a secret of Pulumi's, too."""
    data = secret["data"]
    assert data[rpc._special_sig_key] == rpc._special_secret_sig
    return json.loads(base64.b64decode(data["value"][".dockerconfigjson"]))


def test_the_installer_gets_a_secret_of_a_fixed_name_before_its_pods(recorder: Recorder, run: Any) -> None:
    run(install(image_pull_secrets=ENTRIES, namespace="soci"))
    secret = recorder.inputs("soci-registries")
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (
        "soci-installer-registries",
        "soci",
    )
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert "soci-cluster.io/owner" in secret["metadata"]["annotations"]
    assert decoded(secret)["auths"]["registry.corp:5000"]["password"] == PASSWORD
    pod = recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "regcred"}, {"name": "soci-installer-registries"}]
    made = list(recorder.resources)
    assert made.index("soci-registries") < made.index("soci-daemon-set")


def test_another_password_changes_no_pod(recorder: Recorder, run: Any) -> None:
    def spec(password: str) -> Any:
        run(install(image_pull_secrets=[LOGIN | {"password": password}]))
        return recorder.inputs("soci-daemon-set")["spec"], recorder.inputs("soci-program")["data"]

    assert spec("one") == spec("two")


def test_without_credentials_no_secret_is_made_and_without_entries_no_pod_knows_of_any(
    recorder: Recorder, run: Any
) -> None:
    run(install(image_pull_secrets=["regcred"]))
    assert recorder.of_type(":Secret") == []
    pod = recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "regcred"}]
    run(install())
    assert "imagePullSecrets" not in recorder.inputs("soci-daemon-set")["spec"]["template"]["spec"]


@pytest.mark.parametrize("secret", [pulumi.Output.secret, pulumi.Output.from_input])
def test_a_password_may_be_an_output_of_another_resource(
    recorder: Recorder, run: Any, secret: Callable[[str], pulumi.Output[str]]
) -> None:
    """An ECR token, or a robot account of the same program; plain or not, it is a secret from here."""
    entries = [LOGIN | {"username": pulumi.Output.from_input("AWS"), "password": secret(f"{PASSWORD}\n")}]
    run(install(image_pull_secrets=entries))
    found = decoded(recorder.inputs("soci-registries"))["auths"]["registry.corp:5000"]
    assert (found["username"], found["password"]) == ("AWS", PASSWORD)


@pytest.mark.parametrize(("key", "value"), [("password", ""), ("username", "a:hunter2"), ("password", None)])
def test_an_output_that_is_no_credential_fails_when_it_is_known(
    recorder: Recorder, run: Any, key: str, value: Any
) -> None:
    with pytest.raises(pulumi.RunError, match=f"credentials for registry.corp:5000: {key}") as raised:
        run(install(image_pull_secrets=[LOGIN | {key: pulumi.Output.secret(value)}]))
    assert "hunter2" not in str(raised.value)


def test_no_component_holds_the_credentials_among_its_inputs(recorder: Recorder, run: Any) -> None:
    """Pulumi keeps those in the state and shows them in a preview; the user called nothing a secret here."""
    sample = {"image": "registry.corp:5000/app:1"}
    arguments: Any = {"sha256": DIGESTS, "image_pull_secrets": ENTRIES, "sample_workload": sample}
    run(lambda: SociCluster("soci", arguments).outputs())
    held = {
        name: json.dumps(resource.inputs, default=str)
        for name, resource in recorder.resources.items()
        if not resource.typ.endswith(":Secret")
    }
    assert len(recorder.of_type(":Secret")) == 2
    for secret in ("hunter2", base64.b64encode(PASSWORD.encode()).decode()[:12]):
        assert [name for name, inputs in held.items() if secret in inputs] == []


def test_the_sample_gets_a_secret_in_its_own_namespace(recorder: Recorder, run: Any) -> None:
    def program() -> dict[str, pulumi.Output[str]]:
        return {"pod": SampleWorkload("sample", {"version": "0.16.1", "image_pull_secrets": ENTRIES}).pod}

    run(program)
    secret = recorder.inputs("sample-registries")
    assert {"name", "namespace"}.isdisjoint(secret["metadata"])  # autonamed, beside the Job
    assert decoded(secret)["auths"]["registry.corp:5000"]["username"] == "robot$soci"
    pod = recorder.inputs("sample-job")["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "regcred"}, {"name": "sample-registries-1"}]
    assert "image_pull_secrets" not in recorder.inputs("sample")


def test_an_output_in_the_place_of_the_list_is_refused(run: Any) -> None:
    def program() -> dict[str, pulumi.Output[str]]:
        with pytest.raises(RefusedError, match="must be a list, not a value of the type Output"):
            read(pulumi.Output.secret(ENTRIES))
        return {}

    run(program)

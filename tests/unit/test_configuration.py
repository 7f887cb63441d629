"""Every refusal at plan time, in full, and what is accepted."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.configuration import from_arguments, from_config
from components.problems import SociConfigError
from components.settings import (
    FIELDS,
    SampleSettings,
    Settings,
    config_key,
    declaration,
    plain_arguments,
)

REPOSITORY = Path(__file__).resolve().parents[2]
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
contexts: [{name: one, context: {cluster: c}}, {name: broken, context: {cluster: gone}}]
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
"""


@pytest.fixture
def secrets() -> Iterator[Callable[..., None]]:
    """Calls keys of the configuration secret, as `pulumi config set --secret` does."""
    yield lambda *keys: pulumi.runtime.set_all_config({}, list(keys))
    pulumi.runtime.set_all_config({}, [])


def refusal(**config: str) -> str:
    """What the user is told about a configuration."""
    with pytest.raises(SociConfigError) as raised:
        from_config({f"soci:{key}": value for key, value in config.items()})
    return str(raised.value)


GOVCLOUD_ROLE = "arn:aws-us-gov:iam::123456789012:role/team/deployer"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "version",
            "0.9.0",
            "lazy loading with SOCI index v2 needs 0.10.0 or newer. "
            "Remedy: pulumi config set soci:version 0.16.1",
        ),
        (
            "version",
            "0.11.0",
            "0.11.0 dies when its config file is absent; 0.11.1 has the fix. "
            "Remedy: pulumi config set soci:version 0.11.1",
        ),
        (
            "mode",
            "eager",
            "must be lazy or parallel or lazy-or-parallel. Remedy: pulumi config set soci:mode lazy",
        ),
        ("state", "gone", "must be present or absent. Remedy: pulumi config set soci:state present"),
        ("forceUninstall", "yes", "must be true or false. Remedy: pulumi config rm soci:forceUninstall"),
        (
            "indexVersions",
            '["v3"]',
            "must hold v2, v1 or both. Remedy: pulumi config set --path 'soci:indexVersions[0]' v2",
        ),
        (
            "indexVersions",
            "[]",
            "must hold v2, v1 or both. Remedy: pulumi config set --path 'soci:indexVersions[0]' v2",
        ),
        (
            "sha256",
            '{"amd64": "12"}',
            "the digest for amd64 is not 64 hexadecimal digits. "
            "Remedy: pulumi config set --path soci:sha256.amd64 DIGEST, the 64 digits in the release's "
            ".sha256sum file",
        ),
        (
            "sha256",
            '{"x86_64": "12"}',
            "'x86_64' is not an architecture that SOCI is released for (amd64, arm64). "
            "Remedy: pulumi config set --path soci:sha256.amd64 DIGEST, the 64 digits in the release's "
            ".sha256sum file",
        ),
        (
            "releaseUrl",
            "ftp://mirror",
            "must be an http://, https:// or oci:// address. Remedy: pulumi config set soci:releaseUrl "
            "https://github.com/awslabs/soci-snapshotter/releases/download",
        ),
        (
            "httpProxy",
            "proxy.corp:3128",
            "must be an address of the form http://HOST:PORT. "
            "Remedy: pulumi config set soci:httpProxy http://HOST:PORT",
        ),
        (
            "httpsProxy",
            "https://proxy.corp:3128",
            "must be an address of the form http://HOST:PORT. "
            "Remedy: pulumi config set soci:httpsProxy http://HOST:PORT",
        ),
        (
            "noProxy",
            "10.0.0.0/8 .internal",
            "must be hosts, addresses or networks, separated by commas. "
            "Remedy: pulumi config set soci:noProxy 10.0.0.0/8,.internal",
        ),
        (
            "installerImage",
            "Python 3",
            "not an image reference such as registry.example/repository:tag. Remedy: pulumi config set "
            "soci:installerImage public.ecr.aws/docker/library/python:3.13-alpine",
        ),
        (
            "maxUnavailable",
            "0",
            "must be a number of nodes from 1 up or a percentage such as 10%. "
            "Remedy: pulumi config set soci:maxUnavailable 1",
        ),
        (
            "namespace",
            "kube-system",
            "must be a namespace of the installer's own, which it creates and deletes. "
            "Remedy: pulumi config set soci:namespace soci-system",
        ),
        (
            "existingNodes",
            "force",
            "must be refuse or migrate. Remedy: pulumi config set soci:existingNodes refuse",
        ),
        (
            "upgradePolicy",
            "force",
            "must be when-idle or drain or side-by-side. "
            "Remedy: pulumi config set soci:upgradePolicy when-idle",
        ),
        (
            "operatingSystem",
            "Bottlerocket",
            "Bottlerocket's containerd obeys only its own settings API; a DaemonSet cannot change it. "
            "Remedy: pulumi config set soci:operatingSystem al2023",
        ),
        (
            "kubernetesVersion",
            "1.3",
            "must be a Kubernetes release such as 1.36 (quote it in YAML, which reads 1.30 as 1.3). "
            "Remedy: pulumi config set soci:kubernetesVersion 1.36",
        ),
        (
            "nodeCount",
            "9",
            "must lie between soci:minNodeCount and soci:maxNodeCount (1 to 4). "
            "Remedy: pulumi config set soci:nodeCount 4",
        ),
        (
            "volumeGiB",
            "8",
            "must be a whole number of GiB from 20 to 16384. Remedy: pulumi config set soci:volumeGiB 100",
        ),
        (
            "rolloutTimeoutSeconds",
            "soon",
            "must be a whole number of seconds from 30 to 86400. "
            "Remedy: pulumi config set soci:rolloutTimeoutSeconds 600",
        ),
        (
            "instanceTypes",
            '["big"]',
            "must hold at least one EC2 instance type such as m6i.xlarge. "
            "Remedy: pulumi config set --path 'soci:instanceTypes[0]' m6i.xlarge",
        ),
        (
            "sampleWorkload",
            '{"imgae": "x"}',
            "'imgae' is not one of enabled, image and command. "
            "Remedy: pulumi config rm --path soci:sampleWorkload.imgae",
        ),
        (
            "kubeconfig",
            "kubeconfig",
            "has a meaning only with soci:cluster existing. Remedy: pulumi config rm soci:kubeconfig",
        ),
        (
            "verson",
            "0.16.1",
            "there is no such setting. Remedy: did you mean soci:version? pulumi config rm soci:verson",
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_reason_and_remedy(key: str, value: str, expected: str) -> None:
    # Of objects and unknown keys, which may hold anything, no value is told.
    listed = json.dumps(json.loads(value)) if value.startswith("[") else value
    shown = "[not shown]" if value.startswith("{") or key == "verson" else f"'{listed}'"
    assert refusal(**{key: value}) == f"soci:{key} {shown}: {expected}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("soci-snapshotter-v0.15.0", "0.15.0"),
        ("https://github.com/awslabs/soci-snapshotter/releases/tag/v0.15.0", "0.15.0"),
        ("newest", "0.16.1"),
    ],
)
def test_the_remedy_for_a_version_is_the_one_that_was_pasted(written: str, meant: str) -> None:
    assert refusal(version=written).endswith(f"Remedy: pulumi config set soci:version {meant}")


@pytest.mark.parametrize("rest", ["/v0.16.1", "/v0.16.1/", "/v0.16.1/soci-snapshotter-0.16.1.tar.gz"])
def test_an_address_of_one_release_is_not_where_releases_are(rest: str) -> None:
    """With soci:sha256 it failed on the nodes only."""
    base = "https://mirror.example/soci/releases/download"
    assert refusal(releaseUrl=base + rest).endswith(f"Remedy: pulumi config set soci:releaseUrl {base}")


def test_a_remedy_is_written_as_pulumi_wants_it() -> None:
    assert refusal(requireNodes="perhaps").endswith("pulumi config set soci:requireNodes true")


def test_all_problems_are_reported_at_once_each_on_its_line() -> None:
    lines = refusal(version="1", mode="x", nope="y").splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["soci:version", "soci:mode", "soci:nope"]
    assert all(". Remedy: " in line for line in lines)


def test_eks_settings_are_refused_for_an_existing_cluster(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    path = str(tmp_path / "kubeconfig")
    reason = "has a meaning only with soci:cluster eks. Remedy: pulumi config rm"
    assert refusal(cluster="existing", kubeconfig=path, nodeCount="3", tags='{"a": "b"}').splitlines() == [
        f"soci:nodeCount '3': {reason} soci:nodeCount",
        f"soci:tags [not shown]: {reason} soci:tags",
    ]


def test_an_existing_cluster_needs_a_kubeconfig() -> None:
    assert refusal(cluster="existing") == (
        "soci:kubeconfig '': soci:cluster existing needs the kubeconfig of that cluster. "
        "Remedy: pulumi config set soci:kubeconfig ~/.kube/config"
    )


@pytest.mark.parametrize(("mode", "oldest"), [("parallel", "0.11.1"), ("lazy-or-parallel", "0.16.0")])
def test_a_mode_that_the_version_does_not_know_yet_is_refused(mode: str, oldest: str) -> None:
    """An older daemon would silently ignore it, or refuse layers that are in its store."""
    with pytest.raises(SociConfigError, match=f"soci:mode '{mode}': needs SOCI {oldest} or newer"):
        from_config({"soci:mode": mode, "soci:version": "0.10.0"})
    assert from_config({"soci:mode": mode, "soci:version": oldest}).mode == mode


def test_a_context_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert refusal(cluster="existing", kubeconfig=KUBECONFIG, context="two") == (
        "soci:context 'two': there is no such context in the kubeconfig (there are: broken, one). "
        "Remedy: pulumi config set soci:context broken"
    )


def test_a_kubeconfig_that_is_none_is_refused_without_showing_it() -> None:
    told = refusal(cluster="existing", kubeconfig="token: secret-token\nx: y\n")
    assert "this is not a kubeconfig with contexts and clusters" in told
    assert "secret-token" not in told


def test_a_kubeconfig_given_as_content_is_accepted() -> None:
    settings = from_config({"soci:cluster": "existing", "soci:kubeconfig": KUBECONFIG})
    assert settings.kubeconfig == KUBECONFIG


def test_nothing_set_gives_the_defaults() -> None:
    assert from_config({}) == Settings()
    assert from_config({"aws:region": "eu-west-1", "other:key": "x"}) == Settings()


def test_defaults_of_the_project_file_are_those_of_the_library() -> None:
    declared = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["config"]
    assert set(declared) == set(FIELDS)
    as_config = {
        f"soci:{key}": value["default"] if isinstance(value["default"], str) else json.dumps(value["default"])
        for key, value in declared.items()
    }
    assert from_config(as_config) == Settings()


def test_settings_survive_the_way_through_a_components_arguments() -> None:
    settings = from_config(
        {
            "soci:indexVersions": '["v2", "v1"]',
            "soci:sampleWorkload": '{"enabled": "false"}',
            "soci:nodeCount": "3",
        }
    )
    assert from_arguments(plain_arguments(settings)) == settings


def test_a_partial_sample_workload_keeps_the_other_defaults() -> None:
    sample = from_config({"soci:sampleWorkload": '{"image": "registry.example:5000/a/b:1"}'}).sample_workload
    assert (sample.enabled, sample.image) == (True, "registry.example:5000/a/b:1")
    assert sample.command == Settings().sample_workload.command


def test_yaml_booleans_and_numbers_become_label_text() -> None:
    assert from_config({"soci:nodeLabels": '{"a/b": true, "c": 1}'}).node_labels == {
        "a/b": "true",
        "c": "1",
    }


@pytest.mark.parametrize("path", sorted((REPOSITORY / "stacks").glob("*.yaml")), ids=lambda path: path.name)
def test_each_stack_file_is_accepted(path: Path, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG.replace("name: one", "name: lab"))
    config = yaml.safe_load(path.read_text())["config"]
    if "soci:kubeconfig" in config:
        config["soci:kubeconfig"] = str(tmp_path / "kubeconfig")
        config["soci:context"] = "lab"
    from_config(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    )


@pytest.mark.parametrize("tag", ["v0.16.1", "V0.16.1", " 0.16.1", "v0.16.1\n", "0.16.1\r\n"])
def test_a_release_tag_as_people_paste_it_is_a_version(tag: str) -> None:
    assert from_config({"soci:version": tag}).version == "0.16.1"
    assert from_arguments({"version": tag}).version == "0.16.1"


# What Pulumi hands on of a value in YAML or of `pulumi config set`, or a program gives: it means what was
# written, or is refused. What YAML made another whole number of cannot be told (docs/configuration.md).
@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("maxUnavailable", "1", "1"),
        ("sha256", json.dumps({"amd64": "A" * 64}), {"amd64": "a" * 64}),
        ("namespace", " soci ", "soci"),
        ("forceUninstall", "True", True),
        ("nodeCount", "3", 3),
        ("nodeCount", "3.0", 3),
        ("indexVersions", '["v1", "v1"]', ("v1",)),
        (
            "tags",
            '{"account": 123456789012, "on": true, "empty": ""}',
            {"account": "123456789012", "on": "true", "empty": ""},
        ),
        ("sampleWorkload", '{"command": ["sleep", 5]}', SampleSettings(command=("sleep", "5"))),
        ("clusterName", "Prod_1-a", "Prod_1-a"),
        ("kubeconfigRoleArn", f"{GOVCLOUD_ROLE}\n", GOVCLOUD_ROLE),
        ("addonVersions", '{"coredns": "v1.12.1-eksbuild.2"}', {"coredns": "v1.12.1-eksbuild.2"}),
    ],
)
def test_a_value_means_what_was_written(key: str, value: str, meant: object) -> None:
    assert getattr(from_config({f"soci:{key}": value}), FIELDS[key].name) == meant


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("max_unavailable", 3, "3"),
        ("node_count", 3, 3),
        ("node_count", 3.0, 3),
        ("index_versions", ("v2",), ("v2",)),
        ("node_labels", {"pool": 1}, {"pool": "1"}),
        ("sample_workload", {"enabled": False}, SampleSettings(enabled=False)),
        ("sample_workload", SampleSettings(enabled=False), SampleSettings(enabled=False)),
        ("mode", None, "lazy"),
    ],
)
def test_an_argument_means_what_was_written(name: str, value: object, meant: object) -> None:
    assert getattr(from_arguments({name: value}), name) == meant


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("version", "0.1", "reads 0.10 as 0.1"),
        ("version", "2026-01-02 00:00:00 +0000 UTC", "must be text, and this is a date: quote it in YAML"),
        ("version", "", "not a version"),
        ("mode", "true", "must be lazy or"),
        ("mode", "", "must be lazy or"),
        ("forceUninstall", "", "must be true or false"),
        ("forceUninstall", "1", "must be true or false"),
        ("maxUnavailable", "0.5", "must be a number of nodes"),
        ("maxUnavailable", "01", "must be a number of nodes"),
        ("nodeCount", "1_0", "must be a whole number of nodes"),
        ("nodeCount", "1e1", "must be a whole number of nodes"),
        ("nodeCount", "010", "must be a whole number of nodes"),
        ("nodeCount", "0x10", "must be a whole number of nodes"),
        ("nodeCount", "2.5", "must be a whole number of nodes"),
        ("nodeCount", "true", "must be a whole number of nodes"),
        ("nodeCount", "٣", "must be a whole number of nodes"),
        ("nodeCount", "", "must be a whole number of nodes"),
        ("kubernetesVersion", "1.3", "reads 1.30 as 1.3"),
        ("clusterName", "-prod", "must be a name of letters"),
        ("clusterName", "a" * 101, "must be a name of letters"),
        ("kubeconfigRoleArn", "arn:aws:iam::123456789012:user/me", "must be the ARN of an IAM role"),
        ("kubeconfigRoleArn", "arn:aws:sts::123456789012:assumed-role/a/b", "must be the ARN of an IAM role"),
        ("kubeconfigRoleArn", "deployer", "must be the ARN of an IAM role"),
        ("addonVersions", '{"core-dns": "v1.12.1-eksbuild.2"}', "is none of this cluster's add-ons"),
        ("addonVersions", '{"coredns": "1.12.1"}', "coredns: must be a version such as"),
        ("sha256", "[]", "must be an object of strings, not a list"),
        ("sha256", '{"amd64": ["a"]}', "amd64: must be text, not a list"),
        ("nodeSelector", '{"a": null}', "a: must be text, not null"),
        ("nodeSelector", '{"a": {"b": "c"}}', "a: must be text, not an object"),
        ("nodeSelector", '{"a": 1.5}', "a: must be text, and this is a number"),
        ("nodeSelector", "null", "must be an object of strings, not null"),
        ("nodeSelector", "a=b", "must be an object of strings, not a text"),
        ("tags", '{"a": null}', "a: must be text, not null"),
        ("tags", '{"day": "2026-01-02 00:00:00 +0000 UTC"}', "day: must be text, and this is a date"),
        ("instanceTypes", "m6i.xlarge", "must be a list, not a text"),
        ("instanceTypes", '{"0": "m6i.xlarge"}', "must be a list, not an object"),
        ("instanceTypes", "[null]", "entry 0: must be text, not null"),
        ("instanceTypes", '["m6i.xlarge", ""]', "must be a list of non-empty strings"),
        ("sampleWorkload", "false", "must be an object, not true or false"),
        ("sampleWorkload", '{"enabled": null}', "enabled: must be true or false"),
        ("sampleWorkload", '{"enabled": "yes"}', "enabled: must be true or false"),
        ("sampleWorkload", '{"image": null}', "image: must be text, not null"),
        ("sampleWorkload", '{"command": "sleep 5"}', "command: must be a list, not a text"),
        (
            "sampleWorkload",
            '{"command": ["sleep", 0.10]}',
            "command: entry 1: must be text, and this is a number",
        ),
    ],
)
def test_a_value_that_is_not_what_was_written_any_more_is_refused(key: str, value: str, reason: str) -> None:
    told = refusal(**{key: value})
    assert told.startswith(f"soci:{key} ")
    assert reason in told
    assert len(told.splitlines()) == 1


# Objects whose keys are names that the user gives, or pulumi-eks's own.
FREE_OBJECTS = ("node_groups", "eks_node_group_options", "eks_cluster_options")
WRONG_TYPES = {
    "a number": 1.5,
    "true or false": True,
    "a list": [["a"]],
    "an object": {"a": {}},
    "a type": object(),
}


@pytest.mark.parametrize("value", WRONG_TYPES.values(), ids=WRONG_TYPES)
@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_each_setting_refuses_what_is_not_of_its_type(item: Any, value: object) -> None:
    if item.type is bool and isinstance(value, bool):
        return
    if item.name in FREE_OBJECTS and value == WRONG_TYPES["an object"]:
        return
    with pytest.raises(SociConfigError, match=f"^soci:{config_key(item)} "):
        from_arguments({item.name: value})


def test_outputs_are_refused_as_arguments_since_they_are_not_known_yet(run: Callable[..., None]) -> None:
    def program() -> dict[str, pulumi.Output[str]]:
        with pytest.raises(
            SociConfigError, match=r"soci:mode .*: must be text, not a value of the type Output"
        ):
            from_arguments({"mode": pulumi.Output.from_input("lazy")})
        return {}

    run(program)


SECRET = "hunter2-and-more"


def test_a_proxy_with_credentials_is_refused_with_the_place_where_they_belong() -> None:
    told = refusal(httpsProxy="http://robot:pw@proxy.corp:3128")
    assert "must be a plain address: it is stored in the cluster" in told
    assert "containerd's own unit on the nodes" in told
    assert "robot" not in told


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", ""),
        (" http://proxy.corp:3128/ ", "http://proxy.corp:3128"),
        ("http://[fd00::1]:80", "http://[fd00::1]:80"),
    ],
)
def test_plain_proxies_are_accepted(given: str, meant: str) -> None:
    assert from_config({"soci:httpProxy": given}).http_proxy == meant


def test_exceptions_from_the_proxy_lose_their_blanks() -> None:
    given = "10.0.0.0/8, .internal,*.corp ,fd00:ec2::254,host:8443,"
    assert (
        from_config({"soci:noProxy": given}).no_proxy == "10.0.0.0/8,.internal,*.corp,fd00:ec2::254,host:8443"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", SECRET),
        ("mode", f" {SECRET}\n"),
        ("releaseUrl", f"ftp://{SECRET}"),
        ("sha256", json.dumps({SECRET: "x"})),
        ("sha256", json.dumps({"amd64": SECRET})),
        ("nodeSelector", json.dumps({"a": f"{SECRET}/x"})),
        ("nodeSelector", json.dumps({f"-{SECRET}": "x"})),
        ("sampleWorkload", json.dumps({SECRET: "x"})),
        ("sampleWorkload", json.dumps({"image": SECRET.upper()})),
        ("nodeCount", SECRET),
        ("verson", SECRET),
    ],
)
def test_what_was_set_as_a_secret_is_never_told(key: str, value: str, secrets: Callable[..., None]) -> None:
    secrets(f"soci:{key}")
    told = refusal(**{key: value}).removeprefix(f"soci:{key} ")
    assert told.startswith("[secret]: ")
    assert "hunter2" not in told.lower()


def test_a_secret_number_is_not_told_with_another_setting(secrets: Callable[..., None]) -> None:
    secrets("soci:nodeCount")
    assert "'9'" not in refusal(nodeCount="9")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kubeConfig", f"token: {SECRET}"),
        ("kube_config", SECRET),
        ("kubeconfg", json.dumps({"token": SECRET})),
        ("context", json.dumps({"token": SECRET})),
        ("context", f"token: {SECRET}\nx: y"),
        ("anything", f"token: {SECRET}\nx: y"),
        ("releaseUrl", f"https://user:{SECRET}@mirror.example"),
        ("httpsProxy", f"http://user:{SECRET}@proxy.example:3128"),
        ("httpProxy", f"user:{SECRET}@proxy.example:3128"),
        ("noProxy", f"http://user:{SECRET}@proxy.example:3128"),
        ("releaseUrl", f"https://mirror.example/?signature={SECRET}"),
        ("releaseUrl", f"ftp://user:{SECRET}@mirror.example"),
        ("releaseUrl", f"mirror.example/?signature={SECRET}"),
        ("releaseURL", f"https://user:{SECRET}@mirror.example/soci"),
        ("releaseURL", f"https://{SECRET}@mirror.example/soci"),
        ("releaseURL", f"https://mirror.example/?signature={SECRET}"),
        ("anything", f"https://user:{SECRET}@mirror.example/soci"),
        ("installerImage", f"https://user:{SECRET}@registry.example/python"),
        ("installerImage", f"user:{SECRET}@registry.example/python"),
        ("context", f"apiVersion: v1 clusters: token: {SECRET}"),
        ("mode", f"token: {SECRET}"),
        ("kubeconfig", f"https://user:{SECRET}@mirror.example/config"),
        ("kubeconfig", f"/token: {SECRET}"),
        ("sampleWorkload", json.dumps({"image": f"https://user:{SECRET}@registry.example/python"})),
        ("sampleWorkload", json.dumps({f"https://user:{SECRET}@registry.example": "x"})),
        ("nodeSelector", json.dumps({"a": f"token: {SECRET}"})),
        ("tags", json.dumps({f"https://user:{SECRET}@registry.example": None})),
        ("sha256", json.dumps({f"https://user:{SECRET}@registry.example": "x"})),
        ("httpProxy", f"me:{SECRET}"),
        ("httpProxy", f"http://me:{SECRET}"),
        ("registryPassword", SECRET),
        ("token", SECRET),
        ("eksNodeGroup", json.dumps({"userData": f"export TOKEN={SECRET}"})),
        ("nodeGroups", json.dumps({"a": {"eksNodeGroup": {"userData": f"export TOKEN={SECRET}"}}})),
        ("eksCluster", json.dumps({"nodeUserData": SECRET})),
        ("eksCluster", json.dumps({"providerCredentialOpts": f'{{"token": "{SECRET}"}}'})),
        ("sampleWorkload", json.dumps({"env": {"PASSWORD": SECRET}})),
        ("dockerAuth", SECRET),
        ("tags", json.dumps(["auth", SECRET])),
        ("tags", f"auth={SECRET}"),
        ("nodeTaints", json.dumps([{"auth": SECRET}])),
        ("sampleWorkload", json.dumps(["sh", "-c", f"psql -p{SECRET}"])),
        ("sampleWorkload", f"psql -p{SECRET}"),
        ("mode", json.dumps([{"auth": SECRET}])),
        ("eksCluster", json.dumps([SECRET])),
        ("index", json.dumps({"images": ["a:1"], "toleratedTaints": [f"auth={SECRET}!:NoSchedule"]})),
        ("sampleWorkload", json.dumps({"comand": ["sh", "-c", f"PGPASSWORD={SECRET} psql"]})),
        ("sampleWorkload", json.dumps({"command": ["curl", "-u", f"me:{SECRET}", None]})),
        ("tags", json.dumps({"auth": [SECRET]})),
        ("nodeLabels", json.dumps({"auth": f"{SECRET}!"})),
        ("nodeSelector", json.dumps({"auth": f"{SECRET}!"})),
        ("index", json.dumps({"images": ["a"], "caCertificates": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"})),
    ],
)
def test_what_may_hold_credentials_is_not_told(key: str, value: str) -> None:
    assert "hunter2" not in refusal(**{key: value})


TOKENS = [
    f"Bearer {SECRET}",
    f"Basic {SECRET}",
    f"PASSWORD={SECRET}",
    f"registry.example/;token={SECRET}",
    f"me:{SECRET}",
    base64.b64encode(f"me:{SECRET}".encode()).decode(),
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE/secret",
]


@pytest.mark.parametrize("key", ["version", "releaseUrl", "namespace", "vpcId", "mode", "maxUnavailable"])
@pytest.mark.parametrize("value", TOKENS)
def test_what_is_a_secret_by_its_look_is_not_told_wherever_it_was_pasted(key: str, value: str) -> None:
    told = refusal(**{key: value})
    assert f"soci:{key} [not shown]: " in told
    assert value not in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("installerImage", f"Registry.example:5000/python@sha256:{'a' * 64}"),
        ("indexVersions", '["v2", "v3"]'),
        ("httpProxy", "proxy.example:3128"),
        ("releaseUrl", "mirror.example:8080/soci"),
        ("nodeTaints", '["a:Never"]'),
        ("version", "bm9uZQ=="),
    ],
)
def test_what_holds_no_credentials_is_told(key: str, value: str) -> None:
    assert refusal(**{key: value}).startswith(f"soci:{key} '{value[:60]}")


def test_a_misspelt_key_in_other_letters_is_recognised() -> None:
    assert "did you mean soci:volumeGiB?" in refusal(VOLUMEGIB="5")


def test_every_setting_says_what_it_is() -> None:
    assert all(declaration(item).text.endswith(".") for item in fields(Settings))
    assert len({config_key(item) for item in fields(Settings)}) == len(fields(Settings))


def test_a_node_group_may_be_called_like_a_secret_and_its_problems_are_told() -> None:
    groups = {"tokenizer": {"nodeCount": "many"}}
    assert refusal(nodeGroups=json.dumps(groups)).startswith("soci:nodeGroups.tokenizer.nodeCount 'many': ")

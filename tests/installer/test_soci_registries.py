"""What SOCI is told of registries, and what it is kept from."""

import json
import random
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from agent import containerd_config, soci_registries
from agent.host import Host
from agent.soci_registries import OTHERS, WHOLE, Mirror, Registries

PEM = "-----BEGIN CERTIFICATE-----\nMIIB{}\n-----END CERTIFICATE-----\n"
ROOT, OTHER_ROOT = "/etc/containerd/certs.d", "/etc/docker/certs.d"
DIRECTORIES = f"""\
version = 3
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{ROOT}:{OTHER_ROOT}"
"""
SEVEN, TWO = (1, 7, 35), (2, 3, 7)
PULLS = 'capabilities = ["pull", "resolve"]\n'

Told = Callable[..., Registries]


@pytest.fixture
def told(root: Path) -> Told:
    """What SOCI is told with these files: hosts.toml by registry, or other texts by their whole path."""

    def read(
        files: dict[str, str], version: tuple[int, ...] = TWO, mode: str = "lazy", config: str = DIRECTORIES
    ) -> Registries:
        host = Host(root)
        for path, text in files.items():
            place = path if path.startswith("/") else f"{ROOT}/{path}/hosts.toml"
            host.write(place, text.encode())
        effective = containerd_config.flatten(tomllib.loads(config))
        return soci_registries.read(host, effective, version, mode)

    return read


def reasons(found: Registries) -> dict[str, str]:
    """Registry to why its images are pulled whole."""
    return {limit.registry: limit.reason for limit in found.limits if limit.effect == WHOLE}


# Nine registries whose hosts.toml files were lost on the way to SOCI: spegel#510, #1145, #1387,
# stargz-snapshotter#2363, #2364, soci-snapshotter#1282, containerd#12550, eks-anywhere#10765, harbor#18530.

HEADER = '[host."https://mirror.corp/v2/quay".header]\nauthorization = "Basic cm9ib3Q6cHc="\n'
NINE = {
    "docker.io": f'server = "https://registry-1.docker.io"\n[host."https://mirror.corp/dockerhub"]\n{PULLS}',
    "ghcr.io": 'server = "https://mirror.corp:5000"\n',
    "mtls.corp": f'[host."https://mtls.corp"]\n{PULLS}client = [["/etc/pki/n.crt", "/etc/pki/n.key"]]\n',
    "private-ca.corp": f'server = "https://private-ca.corp"\n[host."https://private-ca.corp"]\n{PULLS}'
    f'ca = "{ROOT}/private-ca.corp/root.pem"\n',
    f"{ROOT}/private-ca.corp/root.pem": PEM.format("root"),
    "quay.io": f'[host."https://mirror.corp/v2/quay"]\n{PULLS}override_path = true\n{HEADER}',
    "registry.k8s.io": '[host."https://cdn.corp"]\ncapabilities = ["pull"]\n',
    "self-signed.corp:8443": f'[host."https://self-signed.corp:8443"]\n{PULLS}skip_verify = true\n',
    f"{ROOT}/docker-style.corp/ca.crt": PEM.format("docker"),
    "_default": f'[host."https://everything.corp"]\n{PULLS}',
}
LAZY_THROUGH = {
    # containerd adds /v2 to the path, SOCI does not.
    "docker.io": (Mirror("https://mirror.corp/dockerhub/v2"),),
    # A mirror that may only be pulled from is all that SOCI's mirrors are.
    "registry.k8s.io": (Mirror("https://cdn.corp"),),
    # SOCI asks these itself, at the end of its list.
    "private-ca.corp": (),
    "docker-style.corp": (),
}
KEPT_OFF = {
    "ghcr.io": "containerd pulls them from mirror.corp:5000, "
    "and SOCI asks for an index at the registry itself only",
    "mtls.corp": "client certificate",
    "quay.io": "header authorization of its mirror mirror.corp",
    "self-signed.corp:8443": "skip_verify",
}


@pytest.mark.parametrize("registry", [*LAZY_THROUGH, *KEPT_OFF])
def test_each_of_nine_registries_is_lazy_or_named(told: Told, registry: str) -> None:
    found = told(NINE)
    if registry in LAZY_THROUGH:
        assert found.mirrors.get(registry, ()) == LAZY_THROUGH[registry]
        assert registry not in found.kept_off
        assert registry not in reasons(found)
    else:
        assert registry in found.kept_off
        assert reasons(found)[registry] == KEPT_OFF[registry]


REMEDIES = {
    "ghcr.io": "let the node reach the registry itself",
    "mtls.corp": "let the node reach the registry itself",
    "quay.io": "let the node reach the registry itself",
    "self-signed.corp:8443": "give the registry a certificate",
    "no-ca.corp": "put the CA certificates into that file",
    "docker.io": "set soci:mode to lazy",
    "registry.k8s.io": "set soci:mode to lazy",
    OTHERS: "give each registry a directory of its own",
}


def test_each_reason_comes_with_what_helps_against_it(told: Told) -> None:
    unreadable = {"no-ca.corp": 'ca = "ca.pem"\n', f"{ROOT}/no-ca.corp/ca.pem": "none"}
    found = told(NINE | unreadable, mode="lazy-or-parallel")
    remedies = {limit.registry: limit.remedy for limit in found.limits}
    assert remedies.keys() == REMEDIES.keys()
    for registry, words in REMEDIES.items():
        assert remedies[registry].startswith(words), registry


def test_the_ninth_is_for_all_others_and_is_named(told: Told) -> None:
    """SOCI has no pattern: it asks the registries themselves, as containerd does at last."""
    (limit,) = [limit for limit in told(NINE).limits if limit.registry == OTHERS]
    assert limit.in_words == (
        "images of registries without a directory of their own are loaded lazily only where the registry "
        "itself answers: SOCI cannot be given the mirrors of all registries"
    )
    assert "directory of its own" in limit.remedy


def test_private_cas_are_trusted_and_those_of_registries_that_are_kept_off_are_not(told: Told) -> None:
    off = {"off.corp": 'client = "x"\nca = "ca.pem"\n', f"{ROOT}/off.corp/ca.pem": PEM.format("off")}
    assert told(NINE | off).certificates == PEM.format("docker") + PEM.format("root")


def test_no_header_and_no_password_reaches_a_text_that_is_told(told: Told) -> None:
    found = told(NINE | {"p.corp": 'server = "https://user:hunter2@m.corp"\n'})
    assert "hunter2" not in repr(found)
    assert "cm9ib3Q6cHc" not in repr(found)


OLD_STYLE = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]
endpoint = ["https://mirror.corp"]
[plugins."io.containerd.grpc.v1.cri".registry.configs."mirror.corp".tls]
ca_file = "/etc/ssl/corp.pem"
[plugins."io.containerd.grpc.v1.cri".registry.configs."mirror.corp".auth]
username = "robot"
password = "pw"
"""
MIRRORS = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors.'
CONFIGS = '[plugins."io.containerd.grpc.v1.cri".registry.configs.'


def test_old_mirrors_are_carried_over_with_their_ca_and_without_their_password(told: Told) -> None:
    """gpu-operator#301, kubeone#3569: containerd 1.7 without config_path."""
    found = told({"/etc/ssl/corp.pem": PEM.format("corp")}, SEVEN, config=OLD_STYLE)
    assert found.mirrors == {"docker.io": (Mirror("https://mirror.corp"),)}
    assert found.certificates == PEM.format("corp")
    assert found.kept_off == ()
    (limit,) = found.limits
    assert (limit.registry, "credentials" in limit.effect) == ("mirror.corp", True)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mirrors", "kept_off"),
    [
        (
            f'{MIRRORS}"r:5000"]\nendpoint = ["http://r:5000"]\n',
            {"r:5000": (Mirror("http://r:5000", True),)},
            (),
        ),
        (
            f'{MIRRORS}"docker.io"]\nendpoint = ["m.corp/x"]\n',
            {"docker.io": (Mirror("https://m.corp/x"),)},
            (),
        ),
        (f'{CONFIGS}"r.corp".tls]\ninsecure_skip_verify = true\n', {}, ("r.corp",)),
        (f'{CONFIGS}"r.corp".tls]\ncert_file = "/c"\nkey_file = "/k"\n', {}, ("r.corp",)),
        (
            f'{CONFIGS}"registry-1.docker.io".tls]\ncert_file = "/c"\n',
            {},
            ("docker.io", "registry-1.docker.io"),
        ),
        (f'{MIRRORS}"*"]\nendpoint = ["https://m.corp"]\n', {}, ()),
    ],
)
def test_old_tables(told: Told, text: str, mirrors: dict, kept_off: tuple[str, ...]) -> None:
    found = told({}, SEVEN, config=f"version = 2\n{text}")
    assert (found.mirrors, found.kept_off) == (mirrors, kept_off)


def test_a_mirror_of_all_registries_in_the_old_tables_is_named(told: Told) -> None:
    found = told({}, SEVEN, config=f'version = 2\n{MIRRORS}"*"]\nendpoint = ["https://m.corp"]\n')
    assert [limit.registry for limit in found.limits] == [OTHERS]


# Mirrors


@pytest.mark.parametrize(
    ("text", "mirrors"),
    [
        ('[host."http://localhost:5000"]\n', [Mirror("http://localhost:5000")]),
        ('[host."https://a"]\n[host."https://b/x/v2"]\n', [Mirror("https://a"), Mirror("https://b/x/v2")]),
        ('[host."https://a"]\noverride_path = true\n', [Mirror("https://a/")]),
        ('[host."https://a/"]\n', [Mirror("https://a")]),
        ('[host."a:5000"]\n', [Mirror("https://a:5000")]),
        ('[host."https://push"]\ncapabilities = ["push"]\n', []),
        ('[host."https://r.corp:443"]\n', []),
        ('[host."https://r.corp"]\n[host."https://b"]\n', [Mirror("https://r.corp"), Mirror("https://b")]),
        ('[host."https://a"]\n[host."https://b"]\nclient = "x"\n', [Mirror("https://a")]),
        (
            'server = "http://r.corp"\n[host."http://a"]\n',
            [Mirror("http://a", True), Mirror("http://r.corp", True)],
        ),
        ('server = "http://r.corp"\nskip_verify = true\n', [Mirror("http://r.corp", True)]),
        ('dial_timeout = "1s"\n[host."https://a"]\n', [Mirror("https://a")]),
    ],
)
def test_mirrors_come_in_containerds_order_and_in_socis_words(
    told: Told, text: str, mirrors: list[Mirror]
) -> None:
    found = told({"r.corp": text})
    assert (list(found.mirrors.get("r.corp", ())), found.kept_off) == (mirrors, ())


def test_a_plain_mirror_does_not_make_soci_ask_a_registry_with_tls_over_plain_http(told: Told) -> None:
    """`insecure` of one mirror is that of the registry itself, too: fs.go, isInsecureHost."""
    found = told({"docker.io": '[host."http://10.0.0.9:5000"]\n'})
    assert found.mirrors == {}
    assert reasons(found) == {"docker.io": "plain HTTP of its mirror 10.0.0.9:5000"}


@pytest.mark.parametrize("mode", ["parallel", "lazy-or-parallel"])
def test_whole_images_are_not_pulled_past_a_mirror(told: Told, mode: str) -> None:
    """SOCI's parallel pull asks the registry itself, and when it fails the pod does not start (fs.go)."""
    found = told(
        {"docker.io": '[host."https://m.corp"]\n', "r.corp": 'server = "http://r.corp"\n'}, mode=mode
    )
    assert found.kept_off == ("docker.io",)
    assert found.mirrors == {"r.corp": (Mirror("http://r.corp", True),)}


# Directories


def test_the_first_directory_that_has_a_registry_counts_and_its_default_has_all(told: Told) -> None:
    other = f"{OTHER_ROOT}/r.corp/hosts.toml"
    assert told({other: '[host."https://b"]\n'}).mirrors == {"r.corp": (Mirror("https://b"),)}
    assert told({"_default": '[host."https://a"]\n'}).mirrors == {"r.corp": (Mirror("https://a"),)}
    assert told({"r.corp": '[host."https://c"]\n'}).mirrors == {"r.corp": (Mirror("https://c"),)}


def test_a_port_may_be_written_with_underscores_and_then_goes_first(told: Told) -> None:
    found = told({"r.corp:5000": '[host."https://b"]\n', "r.corp_5000_": '[host."https://a"]\n'})
    assert found.mirrors == {"r.corp:5000": (Mirror("https://a"),)}


def test_a_file_that_containerd_rejects_is_as_good_as_none(told: Told) -> None:
    texts = ['capabilities = ["fly"]\n', "server = \n", 'host = "x"\n', 'skip_verify = "x"\nclient = "y"\n']
    for text in texts:
        found = told({"r.corp": text, f"{ROOT}/r.corp/ca.crt": PEM.format("lies beside it")})
        assert (found.mirrors, found.kept_off) == ({}, ()), text
        assert found.certificates == PEM.format("lies beside it")


def test_what_a_version_of_containerd_reads_depends_on_it(told: Told) -> None:
    inline = {"r.corp": '[host]\n"https://a" = {}\n'}
    assert told(inline, SEVEN).mirrors == {"r.corp": (Mirror("https://a"),)}
    assert told(inline, TWO).mirrors == {}
    referrers = {"r.corp": '[host."https://a"]\ncapabilities = ["pull", "referrers"]\n'}
    assert told(referrers, TWO).mirrors == {"r.corp": (Mirror("https://a"),)}
    assert told(referrers, SEVEN).mirrors == {}


@pytest.mark.parametrize("text", ["", "no certificate\n"])
def test_a_ca_file_that_containerd_cannot_use_is_named(told: Told, text: str) -> None:
    found = told({"r.corp": 'ca = "ca.pem"\n', f"{ROOT}/r.corp/ca.pem": text})
    assert reasons(found) == {"r.corp": "containerd itself cannot use a CA file that its hosts.toml names"}


def test_no_private_key_of_a_ca_file_is_copied(told: Told) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
    found = told({"r.corp": 'ca = ["ca.pem"]\n', f"{ROOT}/r.corp/ca.pem": key + PEM.format("ca")})
    assert found.certificates == PEM.format("ca")


def test_a_default_that_leads_elsewhere_keeps_soci_off_the_public_registries(told: Told) -> None:
    """Each of them would be dialled in vain, for half a minute an image."""
    found = told({"_default": 'server = "https://m.corp"\n', "quay.io": 'server = "https://quay.io"\n'})
    assert set(found.kept_off) == set(soci_registries.PUBLIC) - {"quay.io"}
    assert "m.corp" in reasons(found)[OTHERS]
    assert not found.allows_parallel


def test_whatever_could_change_it_is_watched(told: Told, root: Path) -> None:
    found = told({"r.corp": 'ca = "/etc/ssl/r.pem"\n', "/etc/ssl/r.pem": PEM.format("r")})
    assert {ROOT, OTHER_ROOT, f"{ROOT}/r.corp", f"{ROOT}/r.corp/hosts.toml", "/etc/ssl/r.pem"} <= set(
        found.sources
    )


def test_a_link_to_a_directory_elsewhere_is_followed_on_the_node(told: Told, root: Path) -> None:
    host = Host(root)
    host.write("/srv/certs/r.corp/hosts.toml", b'[host."https://a"]\n')
    host.path("/etc/containerd").mkdir(parents=True)
    host.path(ROOT).symlink_to("/srv/certs")
    assert told({}).mirrors == {"r.corp": (Mirror("https://a"),)}


def test_a_condition_names_three_registries_and_counts_the_rest(told: Told) -> None:
    found = told({f"r{number}.corp": 'client = "x"\n' for number in range(5)})
    words = soci_registries.in_words(found.limits)
    assert words.startswith("images of r0.corp are pulled whole: client certificate; ")
    assert words.endswith("; 2 more registries are limited, see soci-doctor")
    assert soci_registries.in_words(()) == ""


# Whatever is written there

URLS = (
    "https://m.corp",
    "http://m.corp:5000",
    "m.corp/x",
    "https://r.corp",
    "http://r.corp",
    "https://m.corp/%zz",
)
URLS += (
    "http://localhost:5000",
    "https://127.0.0.1",
    "https://m.corp/x/v2/",
    "ftp://m.corp",
    "https://",
    "[x",
)
FIELDS = (
    ("capabilities", ('["pull"]', '["resolve"]', "[]", '["fly"]', "1")),
    ("ca", ('"ca.pem"', '["ca.pem"]', '"none.pem"', "1")),
    ("client", ('"c.pem"', '[["c.pem", "k.pem"]]', '[["c.pem"]]', "1")),
    ("skip_verify", ("true", "false", '"x"')),
    ("override_path", ("true", "1")),
    ("header", ('{ a = "b" }', "{ a = 1 }")),
    ("dial_timeout", ('"1s"', '"x"', "5")),
)


def written(rng: random.Random) -> str:
    def table() -> list[str]:
        return [f"{name} = {rng.choice(values)}" for name, values in FIELDS if rng.random() < 0.15]

    lines = [f"server = {json.dumps(rng.choice(URLS))}"] if rng.random() < 0.5 else []
    lines += table() if rng.random() < 0.3 else []
    for url in rng.sample(URLS, rng.choice((0, 1, 2, 3))):
        lines += [f"[host.{json.dumps(url)}]", *table()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_hosts_toml_says_soci_asks_nothing_that_containerd_would_not(told: Told, seed: int) -> None:
    rng = random.Random(seed)
    mode, version = rng.choice(("lazy", "parallel", "lazy-or-parallel")), rng.choice((SEVEN, TWO))
    names = ["r.corp", "r.corp:5000", "docker.io", "_default"]
    files = {name: written(rng) for name in names if rng.random() < 0.7}
    files |= {f"{ROOT}/{name}/ca.pem": PEM.format(seed) for name in names if rng.random() < 0.8}
    found = told(files, version, mode)
    assert not set(found.mirrors) & set(found.kept_off)
    whole = {limit.registry for limit in found.limits if limit.effect == WHOLE} - {OTHERS}
    assert whole <= set(found.kept_off) <= whole | set(soci_registries.PUBLIC)
    for registry, mirrors in found.mirrors.items():
        directory = next(name for name in (registry, "_default") if name in files)
        for mirror in mirrors:
            parts = urlsplit(mirror.url)
            assert parts.scheme in ("http", "https")
            assert parts.netloc in files[directory] or parts.netloc in (registry, "registry-1.docker.io")
            assert re.search(r"[\s%\"]", mirror.url) is None
        if any(mirror.is_insecure for mirror in mirrors):
            assert f'"http://{registry}"' in files[directory]
            assert Mirror(f"http://{registry}", True) in mirrors

"""The managed files: which there are on which node, in which order, and what follows when one changes."""

import dataclasses
from pathlib import Path

import pytest
from agent import adoption, kinds, managed, soci_registries
from agent.managed import MANAGED, Managed, Place, Target
from agent.slots import FIRST, OUR_MARK, SECOND, Slot
from agent.transaction import Role

from tests.fakes.node import INSTALLER, FakeHost
from tests.fakes.settings import agent_settings

CONFIG = "/etc/containerd/config.toml"
OURS = adoption.Daemon(FIRST, True, (), False, "")


def target(kind: kinds.Kind = kinds.PLAIN, daemon: adoption.Daemon = OURS) -> Target:
    return Target(
        kind=kind,
        slot=daemon.slot,
        adopts=not daemon.is_ours,
        config_path=CONFIG,
        payload=INSTALLER,
        settings=agent_settings(),
        daemon=daemon,
        program="/opt/soci-cluster/versions/1/soci-snapshotter-grpc",
        config_text="version = 2\n",
        effective={},
        registries=soci_registries.NOTHING,
        environment={},
    )


def roles(host: FakeHost, wanted: Target) -> dict[str, str]:
    return {file.path: file.role for file in managed.files(host, wanted)}


def test_files_come_in_the_order_of_their_roles(fake_host: FakeHost) -> None:
    """What finishes a cut install at boot is there first, containerd's own file changes last."""
    listed = list(roles(fake_host, target()).items())
    order = [role.value for role in Role]
    assert [role for _, role in listed] == sorted((role for _, role in listed), key=order.index)
    assert listed[0] == ("/etc/systemd/system/soci-cluster-boot.service", "recovery")
    assert listed[-1] == (CONFIG, "shared")


def test_a_file_of_ours_alone_says_so_in_its_first_words(fake_host: FakeHost) -> None:
    """One without them is taken for somebody's own where the record of the install is lost: it stays."""
    trusted = soci_registries.Registries(certificates="-----BEGIN CERTIFICATE-----")
    proxy = {"HTTPS_PROXY": "http://proxy.example:3128"}
    systems = dataclasses.replace(OURS, is_ours=False, command=("/usr/bin/s", "--address", "fd://"))
    for wanted in (target(kinds.AL2023), target(daemon=systems)):
        files = list(
            managed.files(fake_host, dataclasses.replace(wanted, registries=trusted, environment=proxy))
        )
        ours = [file for file in files if not file.role.is_read_by_containerd and "/opt/" not in file.path]
        assert {FIRST.config, FIRST.environment, f"{FIRST.certificates}/registries.pem"} <= {
            f.path for f in ours
        }
        unmarked = [file.path for file in ours if not (file.new or b"").startswith(OUR_MARK.encode())]
        assert not unmarked, (
            f"begin them with OUR_MARK, or an uninstall without its record leaves them: {unmarked}"
        )


def test_order_of_the_rows_means_nothing(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [file.role for file in managed.files(fake_host, target())]
    monkeypatch.setattr(managed, "MANAGED", tuple(reversed(MANAGED)))
    assert [file.role for file in managed.files(fake_host, target())] == before


def test_with_a_generator_nobodys_own_work_is_in_containerds_file(fake_host: FakeHost) -> None:
    found = roles(fake_host, target(kinds.AL2023))
    assert list(found.items())[-2:] == [
        ("/etc/eks/nodeadm.d/50-soci-cluster.yaml", "generator"),
        (CONFIG, "generated"),
    ]


def test_unit_of_the_operating_system_is_left_alone(fake_host: FakeHost) -> None:
    systems = dataclasses.replace(OURS, is_ours=False, command=("/usr/bin/s", "--address", "fd://"))
    found = managed.files(fake_host, target(daemon=systems))
    assert FIRST.unit_path not in [file.path for file in found]
    (drop_in,) = [file for file in found if file.path == FIRST.adoption]
    assert drop_in.role is Role.DAEMON
    assert b"--address fd://" in (drop_in.new or b"")


def test_templates_name_the_kinds_units(fake_host: FakeHost) -> None:
    kind = kinds.Kind("other", lambda signs: True, containerd_unit="other.service")
    texts = {file.path: (file.new or b"").decode() for file in managed.files(fake_host, target(kind))}
    assert not [path for path, text in texts.items() if "@" in text and path.startswith("/etc")]
    boot = texts["/etc/systemd/system/soci-cluster-boot.service"]
    hook = texts["/etc/systemd/system/other.service.d/10-soci-cluster.conf"]
    assert "Before=soci-snapshotter.service soci-snapshotter-b.service other.service\n" in boot
    assert "After=soci-cluster-boot.service soci-snapshotter.service soci-snapshotter-b.service\n" in hook
    assert "Before=other.service\n" in texts[FIRST.unit_path]


def test_daemons_files_are_known_for_a_slot_that_is_not_in_use() -> None:
    """By them a daemon is found that was left from an upgrade side by side."""
    assert managed.daemon_paths(SECOND) == {
        SECOND.config,
        SECOND.environment,
        f"{SECOND.certificates}/registries.pem",
        SECOND.unit_path,
        SECOND.adoption,
    }


def test_a_row_is_all_that_a_new_file_takes(fake_host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Managed(
        path=lambda place: f"/etc/new{place.slot.suffix}",
        text=lambda target: f"{target.settings.version}\n",
        role=Role.DAEMON,
        what="something new",
        when=lambda place: not place.adopts,
    )
    monkeypatch.setattr(managed, "MANAGED", (*MANAGED, row))
    found = {file.path: file for file in managed.files(fake_host, target())}
    assert found["/etc/new"].role is Role.DAEMON
    assert found["/etc/new"].new == b"0.16.1\n"
    assert "/etc/new-b" in managed.daemon_paths(SECOND)


def test_mode_and_owner_of_a_file_stay(fake_host: FakeHost) -> None:
    fake_host.write(CONFIG, b"version = 2\n", 0o640)
    (config,) = [file for file in managed.files(fake_host, target()) if file.path == CONFIG]
    assert (config.mode, config.is_changed) == ("0640", False)


def test_a_row_may_have_a_mode_of_its_own(fake_host: FakeHost) -> None:
    """The helper is a program; the list of plugins has what the kubelet's environment has."""
    modes = {file.path: file.mode for file in managed.files(fake_host, target())}
    folder = "/opt/soci-cluster/credentials"
    assert modes[f"{folder}/docker-credential-soci-cluster"] == "0755"
    assert modes[f"{folder}/providers"] == "0600"
    assert modes[f"{folder}/config.json"] == "0644"
    fake_host.write(f"{folder}/providers", b"", 0o644)
    (providers,) = [f for f in managed.files(fake_host, target()) if f.path == f"{folder}/providers"]
    assert providers.mode == "0600"


def test_both_kinds_of_unit_lead_the_daemon_to_the_helper(fake_host: FakeHost) -> None:
    systems = dataclasses.replace(OURS, is_ours=False, command=("/usr/bin/s",))
    for daemon, path in ((OURS, FIRST.unit_path), (systems, FIRST.adoption)):
        texts = {f.path: (f.new or b"").decode() for f in managed.files(fake_host, target(daemon=daemon))}
        folder = "/opt/soci-cluster/credentials"
        assert texts[f"{folder}/config.json"] == '{"credsStore":"soci-cluster"}\n'
        lines = texts[path].splitlines()
        service = lines[lines.index("[Service]") :]
        assert f"Environment=DOCKER_CONFIG={folder}" in service
        assert any(line.startswith(f"Environment=PATH={folder}:/usr/local/sbin:") for line in service)


@pytest.mark.parametrize("slot", [FIRST, SECOND])
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_daemon_starts_without_what_an_earlier_one_has_fetched(
    fake_host: FakeHost, slot: Slot, is_ours: bool
) -> None:
    """SOCI makes a cache of spans for each start and takes no earlier one away: the disk ran full of them."""
    daemon = adoption.Daemon(slot, is_ours, ("/usr/bin/soci-snapshotter-grpc",), False, "")
    path = slot.unit_path if is_ours else slot.adoption
    (text,) = (file.new for file in managed.files(fake_host, target(daemon=daemon)) if file.path == path)
    assert f"ExecStartPre=-/bin/rm -rf {slot.data}/soci/spancache" in (text or b"").decode().splitlines()


def test_every_row_is_on_some_node() -> None:
    used = [row for place in managed.places() for row in managed.rows(place)]
    assert all(row in used for row in MANAGED)


def test_a_kind_without_generator_has_no_file_for_one() -> None:
    place = Place(kind=kinds.PLAIN, slot=FIRST, adopts=False, config_path=CONFIG)
    (row,) = [row for row in MANAGED if row.role is Role.GENERATOR]
    assert not row.when(place)
    with pytest.raises(LookupError, match="plain"):
        row.path(place)


def test_manifest_line_begins_with_the_role(fake_host: FakeHost) -> None:
    lines = [file.manifest_line().split("\t") for file in managed.files(fake_host, target())]
    assert {len(line) for line in lines} == {7}
    assert lines[-1][:4] == ["shared", CONFIG, "0644", "0:0"]
    assert Path(lines[-1][1]).as_posix().strip("/").replace("/", ".") == lines[-1][-1].strip()


def test_each_slot_has_its_daemons_files_for_itself() -> None:
    """A file of both would make the other slot look as if its daemon were still there to be retired."""
    assert managed.daemon_paths(FIRST).isdisjoint(managed.daemon_paths(SECOND))

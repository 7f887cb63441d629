"""The generated parts of the documents are up to date."""

import json
import re
from pathlib import Path

import generate
import node_checks_table
import pytest
import result_picture
from between import between

from components import Settings


@pytest.mark.parametrize(
    ("name", "generator"), generate.GENERATED, ids=[name for name, _ in generate.GENERATED]
)
def test_what_is_generated_is_up_to_date(name: str, generator: generate.Generator) -> None:
    text = (generate.REPOSITORY / name).read_text()
    assert generator(text) == text, f"{name} is out of date. Remedy: make generate"


def test_the_result_in_the_readme_is_the_recorded_one() -> None:
    measured = json.loads(result_picture.RESULTS.read_text())
    readme = result_picture.README.read_text()
    assert readme == result_picture.with_section(readme, measured), "make generate"
    assert result_picture.PICTURE.read_text() == result_picture.picture(measured)


def test_a_document_without_the_markers_is_named_with_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("<!-- table:begin -->\n")
    monkeypatch.setattr(generate, "REPOSITORY", tmp_path)
    monkeypatch.setattr(generate, "GENERATED", [("README.md", lambda text: between(text, "table", "x"))])
    with pytest.raises(SystemExit, match=r"README\.md: the marker <!-- table:end --> is missing"):
        generate.main()


def test_a_check_of_the_node_without_words_for_the_document_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "45-verify.sh"
    script.write_text("CHECKS='\ncri reads it did not load\ncanary runs\n'\n")
    monkeypatch.setattr(node_checks_table, "SCRIPT", script)
    with pytest.raises(ValueError, match=r"45-verify\.sh: not a row of CHECKS: canary runs"):
        node_checks_table.table()


def test_every_test_that_a_document_names_exists() -> None:
    sources = "".join(path.read_text() for path in (generate.REPOSITORY / "tests").rglob("test_*.py"))
    documents = "".join(path.read_text() for path in (generate.REPOSITORY / "docs").glob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", documents))
    assert named
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_programs_and_commands_to_copy_install_the_default_version() -> None:
    """In programs `version` has no default, so that it is written in each of them."""
    root = generate.REPOSITORY
    programs = sorted(root.glob("examples/*/__main__.py"))
    documents = [root / "README.md", *sorted(root.glob("docs/*.md"))]
    patterns = {
        r'"version": "(\d+\.\d+\.\d+)"': [*programs, *documents],
        r"\bV=(\d+\.\d+\.\d+) U=\S+/v\1\b": documents,
        r"Remedy: pulumi config set soci:version (\S+)": documents,
    }
    for pattern, files in patterns.items():
        found = {file: set(re.findall(pattern, file.read_text())) for file in files}
        assert any(found.values()), pattern
        others = {file.relative_to(root): names - {Settings().version} for file, names in found.items()}
        assert {file: names for file, names in others.items() if names} == {}


def test_every_setting_of_the_nodes_is_used_there() -> None:
    """One that only travels changes nothing."""
    agent = generate.REPOSITORY / "scripts" / "installer" / "agent"
    declared = (
        (agent / "settings.py").read_text().partition("# settings:begin")[2].partition("# settings:end")[0]
    )
    used = "".join(path.read_text() for path in agent.glob("*.py") if path.name != "settings.py")
    names = re.findall(r"^    (\w+):", declared, re.MULTILINE)
    assert names
    assert {name for name in names if not re.search(rf"(settings|wanted)\.{name}\b", used)} == set()


def test_every_verb_of_the_host_script_that_is_named_exists() -> None:
    """A renamed one was still asked for on real nodes by tests, and by a document."""
    root = generate.REPOSITORY
    main = (root / "scripts" / "installer" / "host" / "99-main.sh").read_text()
    table = main[main.index("case $verb in") : main.index("*) die")]
    verbs = set(re.findall(r"[a-z-]+(?= *[|)])", table))
    named: dict[str, set[str]] = {}
    texts = [root / "README.md", *root.glob("docs/*.md")]
    texts += [path for folder in ("scripts", "tests") for path in (root / folder).rglob("*.py")]
    for path in texts:
        asked = re.findall(r'(?:soci-host\.sh |sh {SCRIPT} |SCRIPT, ")([a-z-]+)', path.read_text())
        if unknown := set(asked) - verbs:
            named[path.relative_to(root).as_posix()] = unknown
    assert {"apply", "boot", "mounts"} <= verbs
    assert named == {}


def test_the_rooms_list_names_every_room() -> None:
    """A reader looks a feature up there; components/rollout.py was missing for two issues."""
    document = (generate.REPOSITORY / "docs" / "architecture.md").read_text()
    rooms = document[document.index("## The rooms") : document.index("## Glossary")]
    components = {path.name for path in (generate.REPOSITORY / "components").glob("[!_]*.py")}
    packages = {path.parent for path in (generate.REPOSITORY / "components").glob("*/__init__.py")}
    components |= {f"{path.name}/" for path in packages}
    folders = {f"{path.name}/" for path in (generate.REPOSITORY / "scripts").iterdir() if path.is_dir()}
    assert {room for room in components | folders if f"\n  {room} " not in rooms} == set()
    top = {"components/", "docs/", "examples/", "scripts/", "stacks/", "tests/", "Makefile", "Pulumi.yaml"}
    assert {room for room in top if f"\n{room}" not in rooms} == set()
    scripts = generate.REPOSITORY / "scripts"
    for package in (*packages, scripts / "installer" / "agent", scripts / "index" / "soci_index"):
        text = (package / "__init__.py").read_text()
        listed = {line or quoted for line, quoted in re.findall(r"(?m)^ {4}(\w+) |`(\w+)`", text)}
        assert {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"} - listed == set()

"""One word for one thing: the documents use the words of the glossary."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# What could be said in place of a word of the glossary.
ROLLBACKS = r"(?i:the way back|\bundo|\bundone|\brevert)"
OTHER_WORDS = re.compile(rf"{ROLLBACKS}|\b(?:ztoc|Ztoc|ZTOC)s?\b|\bTOC\b|(?i:\blaz(?:y|ily)-load)")
PROGRAMS = ("components", "scripts/installer/agent", "scripts/index/soci_index")
HOST_SCRIPT = REPOSITORY / "scripts/installer/host"


def glossary() -> list[str]:
    text = (REPOSITORY / "docs/architecture.md").read_text()
    part = text[text.index("## Glossary") :]
    table = part[: part.index("\n\n", part.index("|---"))]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_each_word_of_the_glossary_stands_there_once_and_is_used() -> None:
    words = glossary()
    assert len(words) >= 12
    assert len(set(words)) == len(words)
    text = " ".join(document.read_text() for document in DOCUMENTS).lower()
    assert [word for word in words if text.count(word.lower()) < 2] == [], "beside the glossary"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_document_has_another_word_for_what_the_glossary_names(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), 1)
    assert [f"{number}: {line}" for number, line in lines if OTHER_WORDS.search(line)] == []


def texts(program: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string of a program but its documentation: what it may say to somebody."""
    tree = ast.parse(program.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    documentation = {id(node.value) for node in nodes}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


@pytest.mark.parametrize("folder", PROGRAMS)
def test_no_program_says_another_word_for_what_the_glossary_names(folder: str) -> None:
    """Errors, findings, Events and help texts are documents, too. A single word may be a key or a command."""
    programs = sorted((REPOSITORY / folder).rglob("*.py"))
    assert programs
    found = [
        f"{program.name}:{line}: {text}"
        for program in programs
        for line, text in texts(program)
        if re.search(ROLLBACKS, text) or (" " in text.strip() and OTHER_WORDS.search(text))
    ]
    assert found == []


def test_the_host_script_says_no_other_word_either() -> None:
    said = [
        (part.name, line.strip())
        for part in sorted(HOST_SCRIPT.glob("*.sh"))
        for line in part.read_text().splitlines()
        if re.search(r"\b(?:say|die) [\"']", line)
    ]
    assert len(said) > 20
    assert [(part, line) for part, line in said if OTHER_WORDS.search(line)] == []

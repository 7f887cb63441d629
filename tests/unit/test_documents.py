"""The generated parts of the documents are up to date."""

import json
import re

import configuration_table
import pytest
import result_picture


@pytest.mark.parametrize("path", configuration_table.DOCUMENTS, ids=lambda path: path.name)
def test_the_table_in_the_document_is_made_from_the_project_file(path) -> None:
    project = (configuration_table.REPOSITORY / "Pulumi.yaml").read_text()
    document = path.read_text()
    expected = configuration_table.between(document, "configuration", configuration_table.table(project))
    assert document == expected, "run scripts/docs/configuration_table.py"


def test_the_result_in_the_readme_is_the_recorded_one() -> None:
    measured = json.loads(result_picture.RESULTS.read_text())
    readme = result_picture.README.read_text()
    assert readme == result_picture.with_section(readme, measured), "run scripts/docs/result_picture.py"
    assert result_picture.PICTURE.read_text() == result_picture.picture(measured)


def test_every_test_that_a_document_names_exists() -> None:
    sources = "".join(
        path.read_text() for path in (configuration_table.REPOSITORY / "tests").rglob("test_*.py")
    )
    documents = "".join(path.read_text() for path in (configuration_table.REPOSITORY / "docs").glob("*.md"))
    named = set(re.findall(r"`(test_\w+)`", documents))
    assert named
    assert {name for name in named if f"def {name}(" not in sources} == set()

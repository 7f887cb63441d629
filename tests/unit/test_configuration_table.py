"""The documented settings are the declared ones."""

import configuration_table
import pytest


@pytest.mark.parametrize("path", configuration_table.DOCUMENTS, ids=lambda path: path.name)
def test_the_table_in_the_document_is_made_from_the_project_file(path) -> None:
    project = (configuration_table.REPOSITORY / "Pulumi.yaml").read_text()
    document = path.read_text()
    expected = configuration_table.with_table(document, configuration_table.table(project))
    assert document == expected, "run scripts/docs/configuration_table.py"

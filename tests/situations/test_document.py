"""docs/situations.md says what the tests of situations try."""

from tests.situations.situation import DOCUMENT, document


def test_the_document_is_that_of_the_tests() -> None:
    """Where it is not, `python -m tests.situations` writes it anew."""
    assert DOCUMENT.read_text("utf-8") == document()

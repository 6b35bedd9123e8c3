"""Write docs/situations.md: `python -m tests.situations`."""

from tests.situations.situation import DOCUMENT, document

if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")

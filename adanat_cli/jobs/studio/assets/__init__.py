"""Scripts and styles of the page."""

from pathlib import Path


def script(name: str) -> str:
    """The text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")

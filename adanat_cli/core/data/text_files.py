"""Text files of users: UTF-8 or UTF-16 with or without a byte-order mark, and lines as editors count them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from adanat_cli.core.errors import AdaNATError, require

_MARKS = {  # UTF-32 first: its mark begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
LFS_POINTER = b"version https://git-lfs"
"""How a file begins that Git LFS has not fetched."""
_FIELD = re.compile(r'(?:^|\t)(?:"([^"]*(?:""[^"]*)*)"(?=\t|$)|([^\t]*))')
_HEAD = 2**16


def decode_text(content: bytes) -> str:
    """Return the text of a file, without its byte-order mark.

    Raises:
        ValueError: if it is neither UTF-8 nor UTF-16.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" not in content:
        return content.decode("utf-8")
    # UTF-16 without a mark: the high byte of each pair is mostly zero.
    high_first = content[::2].count(0) > content[1::2].count(0)
    return content.decode("utf-16-be" if high_first else "utf-16-le")


def text_lines(text: str) -> list[str]:
    r"""Lines without the blanks around them, and without empty ones.

    Only ``\n`` and ``\r\n`` end a line, unlike in ``str.splitlines``, which also cuts sentences at U+2028 or a
    vertical tab. A byte-order mark inside, as concatenated files have it, is not part of a line.
    """
    lines = (line.lstrip("\ufeff").strip() for line in text.split("\n"))
    return [line for line in lines if line]


def fields_of(line: str) -> list[str]:
    """Split a line at tabs; fields lose the quotes that spreadsheets put around those with quotes or tabs."""
    found = (field.groups() for field in _FIELD.finditer(line))
    return [plain if quoted is None else quoted.replace('""', '"') for quoted, plain in found]


def first_fields(path: Path) -> list[str]:
    """Read the fields of a table's first line, in any encoding."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    encoding = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), "utf-8")
    return fields_of(head.decode(encoding, errors="replace").split("\n")[0].rstrip("\r"))


def refuse_pointer(path: Path) -> None:
    """Refuse a file that Git LFS has not fetched, or that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except OSError as error:
        raise AdaNATError(
            f"{path} cannot be read: {error.strerror}; correct its permissions, or move it away."
        ) from error
    require(
        head != LFS_POINTER, f"{path} is a Git LFS pointer instead of the file; fetch it with `git lfs pull` there."
    )

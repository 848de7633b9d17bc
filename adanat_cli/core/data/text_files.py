"""Text files of users: UTF-8 or UTF-16, with or without a byte-order mark, lines as editors and shells count them."""

from __future__ import annotations

import codecs

_MARKS = {  # UTF-32 first: its mark begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


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
    # UTF-16 without a mark: of two bytes, the high one is the one that is mostly zero.
    high_first = content[::2].count(0) > content[1::2].count(0)
    return content.decode("utf-16-be" if high_first else "utf-16-le")


def text_lines(text: str) -> list[str]:
    r"""Lines without the blanks around them, and without empty ones.

    Only ``\n`` and ``\r\n`` end a line, unlike in ``str.splitlines``, which also cuts sentences at U+2028 or a
    vertical tab. A mark inside, as files put one after the other have it, is no part of a line.
    """
    lines = (line.lstrip("\ufeff").strip() for line in text.split("\n"))
    return [line for line in lines if line]

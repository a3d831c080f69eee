#!/usr/bin/env python3
"""Writes every message of the corpus and its index. Same bytes on every machine and in every run."""

import pathlib
import sys

import families
import handmade

MESSAGES_MIN = 300
CORPUS_BYTES_MAX = 6 * 1024 * 1024


def crlf(data: bytes) -> bytes:
    """CRLF line ends only, and one at the end."""
    data = data.replace(b"\r\n", b"\n")
    assert b"\r" not in data and b"\0" not in data, "no bare CR, no NUL"
    if not data.endswith(b"\n"):
        data += b"\n"
    return data.replace(b"\n", b"\r\n")


def main() -> int:
    here = pathlib.Path(__file__).parent
    for old in here.glob("*.eml"):
        old.unlink()
    index = ["# Written by generate.py. One entry per message, in the order of the file names."]
    total = 0
    messages = list(handmade.messages()) + list(families.messages())
    for number, (shape, note, data, refused) in enumerate(messages, 1):
        data = crlf(data)
        name = f"{number:03}-{shape}.eml"
        (here / name).write_bytes(data)
        total += len(data)
        text = note.replace("\\", "\\\\").replace('"', '\\"')
        index += ["", "[[message]]", f'file = "{name}"', f'shape = "{shape}"', f'note = "{text}"', f"bytes = {len(data)}"]
        index += ["refused = true"] if refused else []
    (here / "index.toml").write_text("\n".join(index) + "\n", encoding="utf-8")
    print(f"{len(messages)} messages, {total} bytes")
    return 0 if len(messages) >= MESSAGES_MIN and total <= CORPUS_BYTES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())

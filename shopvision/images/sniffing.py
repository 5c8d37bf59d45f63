"""What bytes are that are no picture, or not all of one."""

from __future__ import annotations

from shopvision.errors import ItemError

SNIFFED_BYTES = 2048


def is_cut(data: bytes) -> bool:
    """Whether a picture's container announces more than there is; JPEG and BMP decoders say so themselves."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data[4:8] == b"ftyp":
        end = 0
        while end < len(data) and (size := int.from_bytes(data[end : end + 4], "big")) >= 8:
            end += size
        return end > len(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data[-12:]
    return data.startswith((b"GIF87a", b"GIF89a")) and not data.endswith(b";")


def not_a_picture(data: bytes) -> ItemError:
    """What bytes are that no decoder knows, with a code of its own."""
    if is_cut(data):
        return ItemError("truncated", "The picture ends too early.")
    head = data[:SNIFFED_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return ItemError("html", "This is a web page, not a picture.")
    if (
        head.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--"))
        and b"<svg" in data[: 16 * SNIFFED_BYTES].lower()
    ):
        return ItemError("svg", "This is an SVG drawing: export it as PNG or JPEG.")
    if b"<html" in head:
        return ItemError("html", "This is a web page, not a picture.")
    try:
        text = data[:SNIFFED_BYTES].decode("utf-8", errors="strict" if len(data) <= SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if all(character.isprintable() or character in "\r\n\t" for character in text):
        return ItemError("text", "This is text, not a picture.")
    return ItemError(
        "unsupported_format", "This is no JPEG, PNG, WebP, GIF, BMP or AVIF, or its first bytes are damaged."
    )

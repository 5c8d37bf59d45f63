"""Why a picture was refused: the stable reason codes of item failures, and what an operator can do about each."""

from __future__ import annotations

REASONS = {
    "bad_address": "The picture's address cannot be read: correct it in the catalogue.",
    "scheme_refused": "Only file://, s3:// and https:// addresses are fetched.",
    "outside_roots": "The file lies outside the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS.",
    "not_a_file": "The path is a folder, a device or a pipe.",
    "not_found": "There is nothing at this address (any more).",
    "forbidden": "The store or server refuses to hand the picture out: check its rights.",
    "address_refused": "The host is, or resolves to, a private, loopback, link-local or otherwise internal address.",
    "redirect_refused": "The server redirects too often, or to something that is not https.",
    "http_error": "The server answered with an error of its own.",
    "unavailable": "The server or store did not answer, after retries: retry the failed items later.",
    "timeout": "The picture did not arrive in SHOPVISION_IMAGE_TIMEOUT_SECONDS.",
    "too_large_bytes": "The file is larger than SHOPVISION_IMAGE_MAX_BYTES.",
    "content_encoding": "The server sends the picture compressed once more, in a way that is not undone.",
    "empty": "The file has no bytes.",
    "html": "The file is a web page, often an error page with status 200.",
    "svg": "The file is a vector drawing: export it as PNG or JPEG.",
    "text": "The file is text.",
    "unsupported_format": "The file is no JPEG, PNG, WebP, GIF, BMP or AVIF.",
    "truncated": "The file ends too early: upload it again.",
    "corrupt": "The file claims to be a picture and cannot be decoded.",
    "too_many_pixels": "The picture has more pixels than SHOPVISION_IMAGE_MAX_PIXELS (a decompression bomb?).",
    "over_memory": "Decoding the picture alone takes more than SHOPVISION_IMAGE_MEMORY_BYTES.",
    "empty_region": "A region that was asked for holds nothing of the picture.",
    "too_long_side": "A side is longer than SHOPVISION_IMAGE_MAX_SIDE pixels.",
}

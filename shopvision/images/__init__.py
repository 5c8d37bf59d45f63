"""The one door for every picture: fetched with limits and address checks, decoded to upright RGB on white."""

from shopvision.images.decoding import Box, Decoded, PictureLimits, decode, decoding
from shopvision.images.door import FetchedPicture, PictureDoor
from shopvision.images.roots import allow_image_root, allowed_image_roots

__all__ = [
    "Box", "Decoded", "FetchedPicture", "PictureDoor", "PictureLimits",
    "allow_image_root", "allowed_image_roots", "decode", "decoding",
]  # fmt: skip

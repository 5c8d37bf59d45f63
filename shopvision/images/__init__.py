"""The one door for every picture: fetched with limits and address checks, decoded to upright RGB on white."""

from shopvision.images.decoding import PictureLimits, decode
from shopvision.images.door import FetchedPicture, PictureDoor
from shopvision.images.roots import allow_image_root, allowed_image_roots

__all__ = ["FetchedPicture", "PictureDoor", "PictureLimits", "allow_image_root", "allowed_image_roots", "decode"]

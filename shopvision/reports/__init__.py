"""Self-contained HTML pages for people who would rather look: pictures inside, nothing fetched from anywhere."""

from shopvision.reports.page import render_page
from shopvision.reports.thumbnails import read_thumbnails

__all__ = ["read_thumbnails", "render_page"]

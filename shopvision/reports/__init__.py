"""Self-contained HTML pages for people who would rather look: pictures inside, nothing fetched from anywhere."""

from shopvision.reports.page import render_page
from shopvision.reports.thumbnails import Thumbnails

__all__ = ["Thumbnails", "render_page"]

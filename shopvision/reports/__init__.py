"""Self-contained HTML pages for people who would rather look: pictures inside, nothing fetched from anywhere."""

from shopvision.reports.page import render_page

__all__ = ["render_page"]

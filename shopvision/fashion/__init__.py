"""Garments in pictures: where they are and what they are."""

"""The shop's knowledge: catalogue, images, models, embeddings, index and search, usable without any queue."""

__version__ = "0.1.0"

"""Encoders that find the product of a picture: training on pairs of pictures, and measuring by retrieval."""

"""Detectors: networks of several families that give the same regions, from the same kind of model version."""

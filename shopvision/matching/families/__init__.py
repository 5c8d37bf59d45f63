"""Families of pair models: what each reads, and how it is built."""

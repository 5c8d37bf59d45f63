"""Fast paths of encoders, each beside a plain one that gives the same numbers."""

"""The ``shopvision`` command, one file per group."""

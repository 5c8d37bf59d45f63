"""Names that transformers 4 gave the tensors of Swin and ViT, and those of version 5.

A file of version 4 that is loaded as it is leaves most of the network at its random values, and transformers says so in
a log line alone.
"""

from __future__ import annotations

import re

# Derived from the configuration, and no longer stored.
_INDEX = ".relative_position_index"
_RULES = (
    (re.compile(r"^encoder\.layer\.(\d+)\."), r"layers.\1."),  # of ViT alone: Swin has encoder.layers
    (re.compile(r"\battention\.(?:self|attention)\.query\."), "attention.q_proj."),
    (re.compile(r"\battention\.(?:self|attention)\.key\."), "attention.k_proj."),
    (re.compile(r"\battention\.(?:self|attention)\.value\."), "attention.v_proj."),
    (re.compile(r"\battention\.output\.dense\."), "attention.o_proj."),
    (
        re.compile(r"\battention\.self\.relative_position_bias_table$"),
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    (re.compile(r"\bintermediate\.dense\."), "mlp.fc1."),
    (re.compile(r"\boutput\.dense\."), "mlp.fc2."),  # that of the attention is renamed by then
)


def present_name(name: str) -> str | None:
    """The name of a tensor in version 5, which keeps its own names; None for one that is no longer stored.

    >>> present_name("encoder.layer.3.attention.attention.query.weight")
    'layers.3.attention.q_proj.weight'
    """
    if name.endswith(_INDEX):
        return None
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name

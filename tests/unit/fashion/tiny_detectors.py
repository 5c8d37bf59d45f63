"""Small detectors of transformers with random weights, saved as their users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LABELS = ("bag", "dress", "shoes")
_BACKBONE = {
    "model_type": "timm_backbone", "backbone": "test_efficientnet", "num_channels": 3, "out_indices": [2, 3, 4],
    "features_only": True, "use_pretrained_backbone": False,
}  # fmt: skip
_DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 6, "backbone_config": _BACKBONE,
}  # fmt: skip
_RT_DETR = {
    "d_model": 32, "encoder_hidden_dim": 32, "encoder_ffn_dim": 32, "encoder_attention_heads": 4,
    "encoder_in_channels": [24, 32, 256], "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 32,
    "decoder_layers": 2, "decoder_attention_heads": 4, "num_queries": 6, "num_denoising": 3,
    "backbone_config": _BACKBONE,
}  # fmt: skip
_YOLOS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "num_detection_tokens": 6, "image_size": [64, 96], "patch_size": 16,
}  # fmt: skip
_EDGES = {"size": {"shortest_edge": 64, "longest_edge": 96}}
_SQUARE = {"size": {"height": 64, "width": 64}}
FAMILIES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "conditional_detr": ("ConditionalDetr", "ConditionalDetr", _DETR, _EDGES),
    "detr": ("Detr", "Detr", _DETR, _EDGES),
    "rt_detr_v2": ("RTDetrV2", "RTDetr", _RT_DETR, _SQUARE),
    "d_fine": ("DFine", "RTDetr", _RT_DETR, _SQUARE),
    "yolos": ("Yolos", "Yolos", _YOLOS, _EDGES),
}


def save_tiny(family: str, folder: Path) -> Path:
    """A folder of transformers with configuration, image processor and weights."""
    import transformers

    model, processor, config, reading = FAMILIES[family]
    torch.manual_seed(3)
    settled = getattr(transformers, f"{model}Config")(**config, id2label=dict(enumerate(LABELS)))
    network = getattr(transformers, f"{model}ForObjectDetection")(settled).eval()
    network.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**reading).save_pretrained(folder)
    return folder

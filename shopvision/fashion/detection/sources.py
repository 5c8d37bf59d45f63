"""Where detectors come from: folders of transformers, and its hub."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from shopvision.encoders.model_place import ModelPlace, parse_place
from shopvision.encoders.quiet_transformers import quiet_transformers
from shopvision.encoders.unreadable import cannot_load
from shopvision.errors import UserError
from shopvision.fashion.detection.card import save_detector
from shopvision.fashion.detection.transformers_network import TransformersNetwork, make_config
from shopvision.models.card import ModelCard, as_folder_name

# How many batches a network was trained on changes nothing that it computes.
_COUNTER = "num_batches_tracked"


def import_detector(source: str, folder: Path) -> ModelCard:
    """Turn a detector of transformers into a model version in ``folder``.

    Args:
        source: ``local-dir:DIR`` or ``hf-hub:ORG/NAME[@revision]``.
        folder: gets the files and the card.

    Raises:
        UserError: unknown source, unreachable hub, another kind of model, or weights that do not fill the detector.
    """
    place = parse_place(source, "Detector")
    network = fetch_network(place)
    return save_detector(folder, network, name=as_folder_name(place.name), source=f"detector:{place.said}")


def fetch_base(source: str, classes: Sequence[str]) -> TransformersNetwork:
    """A detector of transformers that is to learn other classes: what tells classes apart begins anew.

    Raises:
        UserError: see ``import_detector``.
    """
    return fetch_network(parse_place(source, "Detector"), classes=classes)


def fetch_network(place: ModelPlace, *, classes: Sequence[str] | None = None) -> TransformersNetwork:
    """The detector in a folder or on the hub: filled completely, and its weights used completely.

    Args:
        place: where it lies.
        classes: other ones than its own; weights that do not fit their number are drawn at random.

    Raises:
        UserError: see ``import_detector``.
    """
    import transformers

    library: Any = transformers  # unannotated there
    source = place.said
    if place.is_folder and not Path(place.place, "config.json").is_file():
        raise UserError(f"{place.place} holds no config.json: name the folder of a transformers model.")
    where: dict[str, Any] = {"revision": place.revision, "local_files_only": place.is_folder}
    try:
        with quiet_transformers():
            values, _ = library.PretrainedConfig.get_config_dict(place.place, **where)
            config = make_config(values, source)
            if classes is not None and (names := dict(enumerate(classes))) != config.id2label:
                config.id2label, config.label2id = names, {name: number for number, name in names.items()}
            processor = library.AutoImageProcessor.from_pretrained(
                place.place, config=config, trust_remote_code=False, **where
            )
            network, info = library.AutoModelForObjectDetection.from_pretrained(
                place.place, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
                trust_remote_code=False, **where,
            )  # fmt: skip
    except pickle.UnpicklingError:
        raise UserError(f"{source}: its weights hold more than tensors and are not opened: save safetensors.") from None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        mend = "Check the name and the network; a folder needs config.json, preprocessor_config.json and weights."
        where_it_lies = Path(place.place) if place.is_folder else place.place
        raise cannot_load(source, error, where_it_lies, place.revision, mend) from None
    if not hasattr(processor, "post_process_object_detection"):
        raise UserError(f"{source}: {type(processor).__name__} is no image processor of a detector.")
    _require_complete(info if classes is None else info | {"mismatched_keys": ()}, source)
    _require_finite(network, source)
    return TransformersNetwork(network.eval(), processor)


def _require_complete(info: dict[str, Any], source: str) -> None:
    left_over = sorted(name for name in info["unexpected_keys"] if not name.endswith(_COUNTER))
    missing = sorted(name for name in info["missing_keys"] if not name.endswith(_COUNTER))
    other = sorted(entry[0] for entry in info["mismatched_keys"])
    for names, problem in (
        (missing, "is missing"),
        (left_over, "is not in the architecture"),
        (other, "has another shape than the architecture"),
    ):
        if names:
            raise UserError(f"{source}: tensor '{names[0]}' {problem} ({len(names)} in all). Get the right weights.")


def _require_finite(network: torch.nn.Module, source: str) -> None:
    for name, weight in network.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{source}: tensor '{name}' holds numbers that are not finite. Import weights that were saved whole."
            )

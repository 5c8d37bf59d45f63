"""Checkpoints of the published click ranker (youyuge34/AutoImageSelection): the tensors of its network, by name.

The recall model below lies in the same file, behind ``align_model.``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from shopvision.errors import JobError, UserError
from shopvision.models.card import ModelCard
from shopvision.models.registry import find, local_copy
from shopvision.models.version_folder import read_card
from shopvision.models.weights import load_strictly, read_torch_tensors
from shopvision.selection.click.card import RankerArguments, save_ranker
from shopvision.selection.click.network import ClickNetwork
from shopvision.selection.recall.card import KIND as RECALL_KIND
from shopvision.selection.recall.card import build_recall, load_recall, save_recall
from shopvision.selection.recall.checkpoints import PREPROCESSING, arguments_of, read_vocabulary, renamed

BELOW = "align_model."
_ATTENTION = "attention_layer.local_att"
_PARTS = {
    "linear1": "key",
    "linear3": "first",
    "linear4": "second",
    "linear2": "score",
    f"{_ATTENTION}.fc1.fc.0": "attention.first",
    f"{_ATTENTION}.fc1.fc.1.bn": "attention.dice.norm",
    f"{_ATTENTION}.fc1.fc.3": "attention.second",
    f"{_ATTENTION}.fc2.fc.0": "attention.score",
}


def rename_tensor(name: str) -> str:
    """Name of a published tensor in ``ClickNetwork``; one that is not in the layout keeps its name."""
    part, _, rest = name.rpartition(".")
    return f"{_PARTS[part]}.{rest}" if part in _PARTS else name


def import_checkpoint(
    path: Path, folder: Path, *, vocabulary: Path | None = None, recall: str | None = None
) -> ModelCard:
    """Turn a published checkpoint into a model version in ``folder``.

    Args:
        path: the checkpoint.
        folder: gets the files and the card.
        vocabulary: ``vocab.txt`` of the BERT of the recall model in the file.
        recall: NAME:TAG or folder of a recall model with the very same weights, whose stored vectors of pictures the
            ranker is to read; without it the ranker's vectors are its own.

    Raises:
        UserError: the file is no such checkpoint, ``recall`` has other weights, or neither ``vocabulary`` nor
            ``recall`` is given.
        JobError: names the first tensor that is missing, left over or of another shape.
    """
    tensors = read_torch_tensors(path)
    below = {name.removeprefix(BELOW): tensor for name, tensor in tensors.items() if name.startswith(BELOW)}
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(BELOW)}
    if not below:
        raise UserError(f"{path} is no published click ranker: it has no tensors behind '{BELOW}'.")
    arguments = _arguments(own, path)
    network = ClickNetwork(arguments)
    _require_published(network, own, path)
    load_strictly(network, {rename_tensor(name): tensor for name, tensor in own.items()}, str(path))
    with tempfile.TemporaryDirectory(prefix="shopvision-siamese-") as temporary:
        if recall is not None:
            recall_folder = _same_recall(recall, below, path)
            arguments = arguments.model_copy(update={"recall": read_card(recall_folder).spec})
        else:
            recall_folder = Path(temporary, "recall")
            _write_recall(below, recall_folder, path, vocabulary)
        return save_ranker(folder, network, arguments, recall_folder, name="siamese", source=f"siamese:{path.name}")


def _arguments(own: Mapping[str, Tensor], path: Path) -> RankerArguments:
    """What the network is built from, as the shapes of its tensors say."""

    def rows(name: str) -> int:
        tensor = own.get(f"{name}.weight")
        if tensor is None or tensor.ndim != 2:
            raise JobError(f"{path}: tensor '{name}.weight' is missing. Import the right weights.")
        return len(tensor)

    return RankerArguments(
        dimension=rows("linear1"),
        attention_widths=(rows(f"{_ATTENTION}.fc1.fc.0"), rows(f"{_ATTENTION}.fc1.fc.3")),
        head_widths=(rows("linear3"), rows("linear4")),
    )


def _require_published(network: ClickNetwork, own: Mapping[str, Tensor], path: Path) -> None:
    """Name a missing tensor as the file would."""
    published = {ours: theirs for theirs, ours in _PARTS.items()}
    for name in network.state_dict():
        part, _, rest = name.rpartition(".")
        if f"{published[part]}.{rest}" not in own:
            raise JobError(f"{path}: tensor '{published[part]}.{rest}' is missing. Import the right weights.")


def _write_recall(below: Mapping[str, Tensor], folder: Path, path: Path, vocabulary: Path | None) -> None:
    where = f"{path}, {BELOW.rstrip('.')}"
    if vocabulary is None:
        raise UserError(
            f"{path} does not hold the words of its BERT: give `--option vocabulary=vocab.txt`, or `--option "
            "recall=NAME:TAG` of a recall model with the same weights."
        )
    arguments = arguments_of(below, where)
    tokenizer = read_vocabulary(vocabulary, arguments.text_config["vocab_size"])
    network = build_recall(arguments)
    load_strictly(network, renamed(below), where)
    save_recall(folder, network, arguments, tokenizer, PREPROCESSING, name="align", source=f"siamese:{path.name}")


def _same_recall(recall: str, below: Mapping[str, Tensor], path: Path) -> Path:
    """The folder of a recall model whose weights are those of the file; what its graph left does not count."""
    folder = Path(recall) if Path(recall).is_dir() else local_copy(find(recall))
    read_card(folder, RECALL_KIND)
    known = {
        name: tensor
        for name, tensor in load_recall(folder).network.state_dict().items()
        if not name.startswith("relations.")
    }
    given = renamed(below)
    for name in sorted(known.keys() | given.keys()):
        if name not in known or name not in given or not known[name].equal(given[name].to(known[name].dtype)):
            raise UserError(
                f"{path} was trained on another recall model than {recall}: tensor '{name}' differs. Leave the option "
                "out, and the ranker brings its own."
            )
    return folder

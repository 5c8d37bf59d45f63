"""The two files of a tokenizer in a model version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopvision.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from shopvision.models.version_folder import FileWriter

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def tokenizer_files(tokenizer: PreTrainedTokenizerFast) -> FileWriter:
    """Writes ``TOKENIZER_FILES`` of a model version; equal tokenizers give equal files."""

    def write(folder: Path) -> None:
        # The tokenizer keeps the padding and length of its last use.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.save_pretrained(folder)

    return write


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a model version.

    Raises:
        JobError: a file is missing or damaged.
    """
    from transformers import PreTrainedTokenizerFast

    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            raise JobError(f"{folder / name} is missing: import the model again.")
    try:
        # Not AutoTokenizer: some classes make their own rules instead of those in tokenizer.json.
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises bare Exceptions for damaged files
        raise JobError(f"{folder / TOKENIZER_FILES[0]} cannot be read as a tokenizer: {error}.") from None
    return tokenizer

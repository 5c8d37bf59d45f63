"""What users of the library build on: its names, and the arguments and fields behind them, change on purpose only."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import shopvision

# Changing a line here breaks programs of others: note it in the change log.
SIGNATURES = {
    "connect": "() -> Iterator[Connection]",
    "delete_items": "(connection: Connection, item_ids: Sequence[str]) -> int",
    "delete_plans": "(connection: Connection, plan_ids: Sequence[str]) -> int",
    "get_settings": "() -> Settings",
    "items_from_catalogue": "(connection: Connection, item_ids: Sequence[str]) -> dict[str, Item]",
    "load_model": "(model: str | Path, *, device: str | None = None, precision: Precision = 'auto') -> Any",
    "open_index": "(name: str | None = None) -> IndexReader",
    "read_items": "(path: str | Path, *, images: str | None = None, strict: bool = True, "
    "on_failure: OnFailure | None = None) -> dict[str, Item]",
    "read_pairs": "(path: str | Path, items: Mapping[str, Item] | None = None, *, images: str | None = None, "
    "strict: bool = True, on_failure: OnFailure | None = None) -> PairTable",
    "upsert_items": "(connection: Connection, records: Sequence[dict[str, Any]]) -> Counts",
    "upsert_plans": "(connection: Connection, records: Sequence[dict[str, Any]]) -> Counts",
    "BaseScorer.__call__": "(self, pairs: Sequence[tuple[Item, Item]]) -> list[ScoredPair]",
    "ImageEncoder.__call__": "(self, pictures: Sequence[Picture]) -> NDArray[np.float32]",
    "IndexReader.refresh": "(self) -> bool",
    "IndexReader.search": "(self, vectors: NDArray[float32], k: int, category: str | None = None, *, "
    "soft: bool = True, pictures: Ids | None = None) -> list[list[Hit]]",
    "PlanRanker.__call__": "(self, plan: Topic | Mapping[str, object], pictures: Sequence[Picture], "
    "top_k: int | None = None, *, undated: str | None = None) -> list[RankedPicture]",
    "VisualSearch.__init__": "(self, index: IndexReader | None = None, load: Callable[[str], Any] | None = None, "
    "text_index: IndexReader | None = None) -> None",
    "VisualSearch.by_item": "(self, item_id: str, options: SearchOptions | None = None) -> ItemResult",
    "VisualSearch.by_photo": "(self, photo: Photo, options: SearchOptions | None = None, "
    "choice: GarmentChoice | None = None) -> PhotoResult",
    "VisualSearch.by_photos": "(self, photos: Sequence[Photo], options: SearchOptions | None = None, "
    "choice: GarmentChoice | None = None, *, on_photo: OnPhoto | None = None) -> Iterator[PhotoOutcome]",
    "VisualSearch.by_text": "(self, texts: Sequence[str], options: SearchOptions | None = None) -> list[TextResult]",
    "ItemError.__init__": "(self, code: str, message: str) -> None",
}
FIELDS = {
    "FoundItem": [
        "item_id", "title", "brand", "category", "price", "currency", "image_id", "region", "uri", "score", "style",
        "fits", "colour_difference", "variants", "is_comparable",
    ],
    "Garment": ["number", "box", "label", "score", "items", "notes"],
    "GarmentChoice": ["number", "label", "box"],
    "Hit": ["image_id", "region", "item_id", "uri", "category", "score", "in_category"],
    "Item": [
        "item_id", "title", "category", "brand", "price", "description", "attributes", "picture", "industry",
        "category_path", "source", "regions",
    ],
    "ItemResult": ["item_id", "items", "notes", "generation", "model"],
    "PairTable": ["items", "left", "right", "labels"],
    "PhotoFailure": ["photo", "code", "message"],
    "PhotoResult": ["photo", "size", "garments", "notes", "generation", "model", "detector", "seconds"],
    "RankedPicture": ["index", "score"],
    "ScoredPair": ["probability", "verdict"],
    "SearchOptions": [
        "k", "collapse", "nearly_same", "category", "by_class", "brands", "price_from", "price_to", "soft", "colour",
    ],
    "TextResult": ["text", "items", "notes", "generation", "model", "least_score", "seconds"],
}  # fmt: skip
OTHERS = {"JobError", "Settings", "ShopvisionError", "TransientError", "UserError", "__version__"}
SOURCE = ast.parse(Path(shopvision.__file__).read_text(encoding="utf-8"))


def test_the_surface_is_what_stands_here() -> None:
    assert set(shopvision.__all__) == {name.partition(".")[0] for name in SIGNATURES} | FIELDS.keys() | OTHERS
    assert set(shopvision.__all__) <= set(dir(shopvision))


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments(name: str) -> None:
    member, _, method = name.partition(".")
    found = getattr(shopvision, member)
    signature = str(inspect.signature(getattr(found, method) if method else found))
    # Annotations are texts, and printed in quotes.
    assert signature.replace("'", "") == SIGNATURES[name].replace("'", "")


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    assert list(inspect.signature(getattr(shopvision, name)).parameters) == FIELDS[name]


def test_type_checkers_and_editors_see_the_same_names_at_the_same_places() -> None:
    imports = {
        imported.asname or imported.name: node.module
        for block in SOURCE.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for imported in node.names
    }
    homes = {name: module for module, names in shopvision._HOMES.items() for name in names}
    assert imports == homes
    assert {*homes, "__version__"} == set(shopvision.__all__)


def test_other_names_are_no_part_of_it() -> None:
    with pytest.raises(AttributeError, match="module 'shopvision' has no attribute 'train'"):
        shopvision.train  # noqa: B018

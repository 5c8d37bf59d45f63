"""From a text to items, over an index of its own; a model for which words are colours stands in for the networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shopvision import models
from shopvision.errors import UserError
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.models import activate
from shopvision.search import SearchOptions, VisualSearch
from shopvision.search.text_page import write_text_page
from shopvision.storage import open_store
from tests.conftest import Run
from tests.integration.search.world import MeanColour, ShopItem, fill
from tests.integration.selection.item_shop import add_version

WORDS = {
    "red": (220, 20, 20), "blue": (20, 20, 220), "green": (20, 200, 20), "빨간": (220, 20, 20), "红色": (220, 20, 20),
}  # fmt: skip


class ColourWords(MeanColour):
    """The first word that names a colour says it all."""

    card = SimpleNamespace(thresholds={"score": 0.9})
    max_tokens = 8

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        named = [next((WORDS[word] for word in text.split() if word in WORDS), (99, 99, 99)) for text in texts]
        return self.encode(np.array(named, np.uint8).reshape(-1, 1, 1, 3))

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        return [len(text.split()) > self.max_tokens for text in texts]


def item(item_id: str, colour: tuple[int, int, int], **fields: Any) -> ShopItem:
    return ShopItem(item_id, colour, fields)


WARDROBE = [
    item("tee", (220, 20, 20), title="Red tee", brand="Acme", category="Men/Tops", price=20, style="A"),
    item("copy", (220, 20, 20), title="The same tee", category="Men/Tops", price=25),
    item("rose", (220, 75, 75), title="Rose tee", brand="Acme", category="Men/Tops", price=22, style="A"),
    item("rust", (220, 100, 0), title="Rusty shirt", brand="Bolt", category="Women/Tops", price=40),
    item("boot", (70, 60, 220), brand="Acme", category="Men/Shoes", price=90),
]


@pytest.fixture
def search(
    database: None, tmp_path: Path, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> VisualSearch:
    """A published index for texts; there is none of what looks alike."""
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store", SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    model = models.find(add_version("words", "image_recall"))
    activate("image_recall", model.spec)
    for one in WARDROBE:
        Image.new("RGB", (40, 30), one.colour).save(tmp_path / f"{one.item_id}.png")
    fill(model, WARDROBE, tmp_path.as_uri())
    publish("catalogue-text", model)
    monkeypatch.setattr(models, "load", {"words:1": ColourWords()}.__getitem__)
    return VisualSearch(load={"words:1": ColourWords()}.__getitem__)


def ids(items: Any) -> list[str]:
    return [one.item_id for one in items]


def test_a_text_finds_items_whose_pictures_show_it(search: VisualSearch) -> None:
    red, blue, korean, chinese = search.by_text([" a red tee ", "blue", "빨간 셔츠", "红色 连衣裙"], SearchOptions(k=3))
    assert (red.text, red.model, red.least_score, red.notes) == ("a red tee", "words:1", 0.9, ())
    assert red.generation.startswith("indexes/catalogue-text/generations/words@1/")
    assert ids(red.items)[1:] == ["rose", "rust"]
    assert {red.items[0].item_id, *red.items[0].variants} == {"tee", "copy"}  # equal bytes are shown once
    assert red.items[0].score == pytest.approx(1, abs=2e-3)
    assert ids(blue.items)[0] == "boot"
    assert korean.items == chinese.items == red.items
    assert set(red.seconds) == {"embed", "index", "facts"}


def test_filters_styles_and_notes_are_as_for_photos(search: VisualSearch) -> None:
    (soft,) = search.by_text(["red"], SearchOptions(k=4, brands=("bolt",), collapse="style"))
    assert (soft.items[0].item_id, soft.items[0].fits) == ("rust", True)
    assert "rose" not in ids(soft.items)  # of the tee's style
    (hard,) = search.by_text(["red"], SearchOptions(k=4, soft=False, price_to=Decimal(22), nearly_same=1.0))
    assert ids(hard.items) == ["tee", "rose"]
    (nothing,) = search.by_text(["green"], SearchOptions(k=1))
    assert nothing.notes == (
        "Nothing scores 0.90, from which on a picture shows what a text says: these are the nearest.",
    )
    (long,) = search.by_text(["red one two three four five six seven eight"], SearchOptions(k=1))
    assert long.notes == ("The text is longer than words:1 reads: it was cut after 8 tokens.",)


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (["red", "  "], SearchOptions(), "The text is empty"),
        ([], SearchOptions(), "The text is empty"),
        (["red"], SearchOptions(colour=0.5), "A text has no photographed class or colour"),
    ],
)
def test_what_cannot_be_searched_with_is_told(
    search: VisualSearch, texts: list[str], options: SearchOptions, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        search.by_text(texts, options)


def test_before_there_is_an_index_for_texts(
    database: None, tmp_path: Path, set_environment: Callable[..., None], command_line: Run
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    status, _, err = command_line("search", "--text", "red")
    assert (status, "no model serves the role image_recall" in " ".join(err.split())) == (1, True)
    activate("image_recall", add_version("words", "image_recall"))
    status, _, err = command_line("search", "--text", "red")
    told = " ".join(err.split())
    assert (status, "refresh_embeddings role=image_recall --wait` embeds the pictures" in told) == (1, True)


def test_a_page_of_all_pictures(search: VisualSearch, tmp_path: Path, command_line: Run) -> None:
    run = partial(command_line, "search")
    page = tmp_path / "red.html"
    status, out, err = run("--text", "red", "--text", "blue", "--page", page, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [one["text"] for one in told["texts"]] == ["red", "blue"]
    assert told["page"] == str(page)
    assert "Rusty shirt" in page.read_text()
    for arguments, words in (
        (("--text", "red", "--page", tmp_path / "none" / "a.html"), "name a file in a folder that exists"),
        (("photo.jpg", "--page", page), "--page belongs to --text"),
        (("--text", "red", "--box", "1,2,3,4"), "belong to photos: a text has none"),
        (("--text", "red", "--item", "tee"), "Say what to look for"),
    ):
        status, _, err = run(*arguments)
        assert (status, words in " ".join(err.split())) == (1, True), arguments


def test_the_page_of_more_pictures_than_it_holds_has_the_best_and_the_worst(
    search: VisualSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shopvision.reports import gallery
    from shopvision.search import text_page

    for module in (gallery, text_page):
        monkeypatch.setattr(module, "MOST_PICTURES", 2)
    write_text_page(search, ["red"], tmp_path / "red.html", SearchOptions())
    found = (tmp_path / "red.html").read_text().split('id="queries">')[1].split("</script>")[0]
    (query,) = json.loads(found)["queries"]
    assert [row["title"] for row in query["rows"]][-1] == "boot"
    assert query["rows"][0]["title"] in {"Red tee", "The same tee"}
    assert query["left_out"] == 3


def test_an_index_without_pictures(search: VisualSearch) -> None:
    from shopvision.catalogue import delete_items
    from shopvision.database import connect

    with connect() as connection:
        delete_items(connection, ids(WARDROBE))
    publish("catalogue-text", models.find("words:1"))
    reader = IndexReader(open_store(), "catalogue-text", _cache())
    (result,) = VisualSearch(load={"words:1": ColourWords()}.__getitem__, text_index=reader).by_text(["red"])
    assert (result.items, result.notes) == ((), ("The index holds no pictures.",))


def _cache() -> Path:
    from shopvision.settings import get_settings

    return get_settings().cache_dir / "another"

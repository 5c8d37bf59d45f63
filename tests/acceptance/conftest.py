"""One shop for all fault tests: started once, repaired before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from sqlalchemy import text

from shopvision.database import connect, dispose_engine
from shopvision.models import activate, import_model
from shopvision.settings import get_settings
from tests.acceptance.shop import BUCKET, SERVERS, Shop
from tests.made_catalogue import make_catalogue
from worker.stack.prepare import prepare


@pytest.fixture(scope="package")
def running_shop(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers, workers, a tiny encoder and a catalogue of 301 pictures, all of them embedded and published.

    The default model is there too; it takes over in a test of its own.
    """
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(folder, s3_server)
    with pytest.MonkeyPatch.context() as patch, shop.proxy:
        for name, value in shop.variables.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        dispose_engine()
        try:
            shop.start(*SERVERS)
            boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=BUCKET)
            prepare()
            save_tiny_encoder(folder / "tiny")
            activate("catalogue_encoder", import_model(f"local-dir:{folder / 'tiny'}").spec)
            shop.start("gpu", "cpu")
            make_catalogue(folder / "catalogue")
            shop.cli("catalogue", "import", str(folder / "catalogue" / "items.jsonl"))
            with connect() as connection:
                connection.execute(text("CREATE TABLE effects (key text)"))
            shop.read_images()
            assert shop.wait(shop.submit("refresh_embeddings")).state == "succeeded"
            yield shop
        finally:
            dispose_engine()
            shop.stop_everything()
            get_settings.cache_clear()


def save_tiny_encoder(folder: Path) -> None:
    """A network that makes 256 numbers of a picture in milliseconds, and tells pictures apart untrained."""
    import timm
    import torch

    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", num_classes=7)
    timm.models.save_for_hf(network, str(folder), safe_serialization=True)


@pytest.fixture
def shop(running_shop: Shop, set_environment: Callable[..., None]) -> Shop:
    """The shop in good order, and the settings of this test those of the shop."""
    set_environment(**running_shop.variables)
    running_shop.repair()
    return running_shop

"""One shop for all fault tests: started once, repaired before each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from sqlalchemy import text

from shopvision.database import connect, dispose_engine
from shopvision.settings import get_settings
from tests.acceptance.shop import BUCKET, SERVERS, Shop
from worker.stack.prepare import prepare


@pytest.fixture(scope="session")
def running_shop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Servers, workers, the default model and a catalogue of 723 real photos, all of them embedded and published."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop(folder)
    with pytest.MonkeyPatch.context() as patch, shop.proxy:
        for name, value in shop.variables.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        dispose_engine()
        try:
            shop.start(*SERVERS)
            boto3.client("s3", endpoint_url=shop.proxy.url).create_bucket(Bucket=BUCKET)
            prepare()
            shop.start("gpu", "cpu")
            shutil.copytree(data / "magento_luma" / "images", folder / "catalogue" / "images")
            shutil.copy(data / "magento_luma" / "items.jsonl", folder / "catalogue")
            items = str(folder / "catalogue" / "items.jsonl")
            shop.cli("catalogue", "import", items)
            with connect() as connection:
                connection.execute(text("CREATE TABLE effects (key text)"))
            shop.read_images()
            shop.cli("jobs", "submit", "refresh_embeddings", "--wait")
            yield shop
        finally:
            dispose_engine()
            shop.stop_everything()
            get_settings.cache_clear()


@pytest.fixture
def shop(running_shop: Shop, set_environment: Callable[..., None]) -> Shop:
    """The shop in good order, and the settings of this test those of the shop."""
    set_environment(**running_shop.variables)
    running_shop.repair()
    return running_shop

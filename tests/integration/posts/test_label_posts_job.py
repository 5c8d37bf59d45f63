"""label_posts on real Postgres, from a file of posts to pairs, with the runner called directly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import delete, select, update

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.fashion.posts.tables import LabelledPost, Post, TrainingPair
from shopvision.models import activate
from shopvision.models.tables import ModelRole
from tests.integration.posts.colour_models import COLOUR, OTHER, photo, thumbnail
from tests.integration.posts.post_shop import PostShop, add_version, labelled, pairs
from worker.ledger import jobs
from worker.ledger.progress import job_progress, list_failures

SHOES = [(200, 200, 0), (180, 180, 0), (160, 160, 0)]


def test_garments_are_paired_with_the_thumbnails_of_their_class(shop: PostShop) -> None:
    job = shop.label(shop.post("p1", "top", "shoes", seed=1), shop.post("p2", "bag", seed=2))
    assert (job.state, job.error, job.done, job.failed) == ("succeeded", None, 2, 0)
    assert labelled() == {"p1": ("kept", None), "p2": ("kept", None)}
    with connect() as connection:
        columns = TrainingPair.__table__.c
        one = connection.execute(select(*columns).where(columns.post_id == "p1", columns.product_id == "shoes")).one()
    assert one.anchor_box == [30, 20, 50, 40]
    assert one.anchor_uri == (shop.folder / "p1.png").as_uri()
    assert one.positive_uri == (shop.folder / "shoes.png").as_uri()
    assert (one.category, one.state, one.reason, one.job_id) == ("shoes", "kept", None, job.job_id)
    assert (one.garment_score, one.class_probability) == pytest.approx((0.8, 0.97))
    assert job.result == {
        "detector": "detector:1", "classifier": "classifier:1", "posts": {"kept": 2}, "pairs": {"kept": 3},
        "failed": {},
    }  # fmt: skip


def test_each_rule_rejects_its_posts_and_says_so(shop: PostShop) -> None:
    def shown(post_id: str, *colours: tuple[int, int, int]) -> str:
        return shop.save(f"{post_id}.png", photo(*colours, seed=len(post_id) + ord(post_id[-1])))

    top, two = shop.thumbnails("top"), shop.thumbnails("top", "bag")
    unsure = shop.save("unsure.png", thumbnail((190, 10, 10)))
    small = shop.save("small.png", thumbnail(COLOUR["top"], side=199))
    another = {"product_id": "another", "thumbnail": "top.png"}
    job = shop.label(
        {"post_id": "bare", "photo": shown("bare", COLOUR["top"])},
        {"post_id": "blind", "photo": shown("blind", COLOUR["top"]), "products": [{"product_id": "x"}]},
        {"post_id": "empty", "photo": shown("empty"), "products": top},
        {"post_id": "gloves", "photo": shown("gloves", (0, 200, 200), (0, 160, 160)), "products": top},
        {"post_id": "people", "photo": shown("people", *SHOES, COLOUR["top"]), "products": top},
        {"post_id": "pair", "photo": shown("pair", *SHOES[:2], COLOUR["top"]), "products": two},
        {"post_id": "tops", "photo": shown("tops", COLOUR["top"], (230, 0, 0)), "products": top},
        {"post_id": "twins", "photo": shown("twins", COLOUR["top"]), "products": [*two, another]},
        {"post_id": "none", "photo": shown("none", COLOUR["top"]), "products": [
            {"product_id": "unsure", "thumbnail": unsure}, {"product_id": "small", "thumbnail": small},
            {"product_id": "etc", "thumbnail": shop.save("etc.png", thumbnail(OTHER))}, {"product_id": "bare"},
            {"product_id": "gone", "thumbnail": "gone.png"},
        ]},
        {"post_id": "apart", "photo": shown("apart", COLOUR["top"]), "products": shop.thumbnails("bag")},
    )  # fmt: skip
    assert (job.state, job.done, job.failed) == ("succeeded", 10, 0)
    assert {post: reason for post, (_, reason) in labelled().items()} == {
        "bare": "no_products", "blind": "no_thumbnails", "empty": "no_garment", "gloves": "no_garment",
        "people": "too_many_shoes", "pair": None, "tops": "repeated_class", "twins": "thumbnails_of_one_class",
        "none": "no_usable_thumbnail", "apart": "no_pair",
    }  # fmt: skip
    assert pairs() == {
        ("pair", "top"): "kept", ("pair", "bag"): "not_in_photo", ("twins", "top"): "thumbnails_of_one_class",
        ("twins", "another"): "thumbnails_of_one_class", ("twins", "bag"): "thumbnails_of_one_class",
        ("none", "unsure"): "unsure_class", ("none", "small"): "small_thumbnail", ("none", "etc"): "other_class",
        ("none", "bare"): "no_thumbnail", ("none", "gone"): "not_found", ("apart", "bag"): "not_in_photo",
    }  # fmt: skip
    assert job.result is not None
    assert job.result["posts"]["no_garment"] == 2
    assert job.result["pairs"]["thumbnails_of_one_class"] == 3


def test_rules_are_parameters(shop: PostShop) -> None:
    three = {"post_id": "three", "photo": shop.save("three.png", photo(*SHOES)), "products": shop.thumbnails("shoes")}
    assert shop.label(three, rules={"max_shoes": 3}).result["posts"] == {"kept": 1}  # type: ignore[index]
    assert shop.label(three, rules={"max_shoes": 2}).result["posts"] == {"too_many_shoes": 1}  # type: ignore[index]
    assert pairs() == {}  # those of before are gone
    assert shop.label(three, rules={"classes": ["top"]}).result["posts"] == {"no_garment": 1}  # type: ignore[index]
    for rules, words in (({"classes": ["hat"]}, "knows no class 'hat'"), ({"classes": ["glove"]}, "classifier knows")):
        job = shop.label(three, rules=rules)
        assert job.state == "failed"
        assert words in str(job.error)


def test_a_second_run_leaves_alone_what_did_not_change(shop: PostShop) -> None:
    records = [shop.post("p1", "top", seed=1), shop.post("p2", "bag", seed=2)]
    shop.label(*records)
    shown = shop.network.shown
    again = shop.label(*records)
    assert (again.done, again.skipped, shop.network.shown) == (2, 2, shown)
    assert shop.run().total == 0
    records[0]["products"] = [*records[0]["products"], {"product_id": "new", "title": "without a picture"}]
    assert [shop.label(*records).skipped, shop.network.shown] == [1, shown + 1]
    assert pairs()["p1", "new"] == "no_thumbnail"
    records[1]["products"][0]["title"] = "Another name"
    assert shop.label(*records).skipped == 2
    with connect() as connection:
        stored = connection.scalar(select(Post.products).where(Post.post_id == "p2"))
    assert stored is not None
    assert stored[0]["title"] == "Another name"
    everything = shop.run(scope="all")
    assert (everything.total, everything.skipped, shop.network.shown) == (2, 0, shown + 3)
    named = shop.run(post_ids=["p1", "p1"])
    assert (named.total, named.skipped) == (1, 1)


def test_another_model_stands_beside_the_former_one(shop: PostShop) -> None:
    shop.label(shop.post("p1", "top", seed=1))
    spec = add_version("other", "fashion_detector")
    shop.models[spec] = shop.models["detector:1"]
    activate("fashion_detector", spec)
    job = shop.run()
    assert (job.total, job.params["detector"]) == (1, spec)
    with connect() as connection:
        assert len(set(connection.scalars(select(TrainingPair.detector_version_id)))) == 2


def test_nearly_the_same_photo_counts_once(shop: PostShop) -> None:
    first = shop.post("p1", "top", seed=1)
    copy = shop.post("p0", "top", seed=1) | {"photo": "copy.png"}
    with Image.open(shop.folder / "p1.png") as shown:
        shown.resize((240, 320), Image.Resampling.NEAREST).save(shop.folder / "copy.png")
    bare = {"post_id": "a", "photo": "p1.png", "products": []}
    shop.label(bare, first, shop.post("other", "top", seed=7))
    shown_before = shop.network.shown
    job = shop.label(copy)
    assert labelled() == {
        "a": ("rejected", "no_products"), "p1": ("kept", None), "other": ("kept", None),
        "p0": ("rejected", "same_photo"),
    }  # fmt: skip
    assert shop.network.shown == shown_before  # it did not even look
    assert job.result is not None
    assert (job.result["posts"], job.result["pairs"]) == ({"same_photo": 1}, {})
    with connect() as connection:
        assert connection.scalar(select(LabelledPost.same_as).where(LabelledPost.post_id == "p0")) == "p1"
    assert shop.run().total == 0
    # Where nobody knows them yet, they meet when they are stored; the one that was there before stays.
    shop.run(scope="all")
    assert labelled()["p1"] == ("kept", None)
    # The copy's turn comes once the first one shows something else.
    shop.label(shop.post("p1", "top", "bag", seed=30))
    assert shop.run().total == 1
    assert labelled()["p0"] == ("kept", None)
    assert shop.label(first, copy, rules={"photo_distance": None}).result["posts"] == {"kept": 2}  # type: ignore[index]


def test_copies_in_one_chunk(shop: PostShop) -> None:
    records = [shop.post(name, "top", seed=1) for name in ("x", "y", "z")]
    job = shop.label(*records)
    assert labelled() == {"x": ("kept", None), "y": ("rejected", "same_photo"), "z": ("rejected", "same_photo")}
    assert set(pairs()) == {("x", "top")}
    assert job.result is not None
    assert job.result["pairs"] == {"kept": 1}


def test_photos_that_are_no_use_fail_and_are_tried_again_when_somebody_asks(shop: PostShop) -> None:
    dark = photo(COLOUR["top"], seed=3)
    dark.putpixel((0, 0), (0, 0, 0))
    products = shop.thumbnails("top")
    job = shop.label(
        {"post_id": "row 1", "photo": "gone.png", "products": products},
        {"post_id": "dot", "photo": shop.save("dot.png", Image.new("RGB", (1, 1))), "products": products},
        {"post_id": "nan", "photo": shop.save("nan.png", dark), "products": products},
        shop.post("good", "top", seed=4),
    )
    assert (job.state, job.done, job.failed) == ("succeeded", 1, 3)
    failures = {one["item_key"]: one["code"] for one in list_failures(job.job_id, limit=9)}
    assert failures == {'"row 1"': "not_found", "dot": "unfit_shape", "nan": "bad_boxes"}
    assert labelled() == {
        "row 1": ("failed", "not_found"), "dot": ("failed", "unfit_shape"), "nan": ("failed", "bad_boxes"),
        "good": ("kept", None),
    }  # fmt: skip
    assert job.result is not None
    assert job.result["failed"] == {"bad_boxes": 1, "not_found": 1, "unfit_shape": 1}
    assert shop.run().total == 0  # by itself nothing will change
    shop.save("gone.png", photo(COLOUR["top"], seed=5))
    retry = jobs.retry_failed(job.job_id)
    shop.work()
    assert (job_progress(retry).done, job_progress(retry).failed) == (1, 2)
    assert labelled()["row 1"] == ("kept", None)


def test_rows_that_are_no_posts(shop: PostShop) -> None:
    good = shop.post("p1", "top", seed=1)
    job = shop.label(
        good,
        {"photo": "x.png", "products": []},
        {"post_id": "p2", "products": []},
        {"post_id": "p3", "photo": "x.png", "products": "top"},
        {"post_id": "p4", "photo": "x.png", "products": [{"thumbnail": "x.png"}]},
        {"post_id": "p5", "photo": "ftp://x/y.png"},
        good,
    )
    assert (job.total, job.done, job.failed) == (7, 1, 6)
    failures = {one["item_key"]: one["message"] for one in list_failures(job.job_id, limit=9)}
    assert [failures[f"row {row}"].partition(": ")[2] for row in range(2, 8)] == [
        "no post_id; give one.",
        "no photo; give the address of the post's photo.",
        "products is no list; write [{product_id, thumbnail, title}, ...].",
        "product 1: no product_id; give one.",
        "photo: uri 'ftp://x/y.png' is not supported; use file:///, s3://, https:// or a `file`.",
        "post 'p1' stands in line 1 too; keep one of them.",
    ]
    shop.file(good, shop.post("p2", "bag", seed=2))
    retry = jobs.retry_failed(job.job_id)
    shop.work()
    assert (job_progress(retry).total, labelled()["p2"]) == (1, ("kept", None))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_other_formats(shop: PostShop, suffix: str) -> None:
    record = shop.post("p1", "top", seed=1)
    path = shop.folder / f"posts.{suffix}"
    if suffix == "csv":
        path.write_text(
            'post_id,photo,products\np1,p1.png,"[{""product_id"": ""top"", ""thumbnail"": ""top.png""}]"\np2,p1.png,\n'
        )
    else:
        import pyarrow as pa
        from pyarrow import parquet

        products = [record["products"], None]
        parquet.write_table(
            pa.table({"post_id": ["p1", "p2"], "photo": ["p1.png", "p1.png"], "products": products}), path
        )
    shop.run(posts_file=path.as_uri(), images=str(shop.folder))
    assert labelled() == {"p1": ("kept", None), "p2": ("rejected", "no_products")}
    assert pairs() == {("p1", "top"): "kept"}


def test_posts_that_a_service_sends_with_the_job(shop: PostShop) -> None:
    record = shop.post("p1", "top", seed=1)
    record["photo"] = (shop.folder / record["photo"]).as_uri()
    with pytest.raises(
        UserError, match=r"label_posts: posts: Value error, post 1: product 1: thumbnail: file 'top\.png'"
    ):
        shop.submit(posts=[record])
    record["products"][0]["thumbnail"] = (shop.folder / "top.png").as_uri()
    job = shop.run(posts=[record, record])
    assert (job.total, pairs()) == (1, {("p1", "top"): "kept"})


def test_many_thumbnails_and_many_garments(shop: PostShop) -> None:
    """Thumbnails go through the classifier in full batches, whosever they are; a picture that many show goes once."""
    products = [
        {"product_id": f"{number}", "thumbnail": shop.save(f"{number}.png", thumbnail(OTHER, side=200 + number))}
        for number in range(30)
    ]
    many = [{"product_id": f"more {number}", "thumbnail": f"{number % 30}.png"} for number in range(470)]
    shop.label(
        {"post_id": "many", "photo": shop.save("m.png", photo(COLOUR["top"], seed=1)), "products": products + many},
        shop.post("p1", "top", seed=2),
        shop.post("p2", "bag", seed=3),
    )
    assert labelled()["many"] == ("rejected", "no_usable_thumbnail")
    assert len(pairs()) == 502
    assert shop.classifier.batches == [4] * 8
    crowd = np.zeros((40, 300, 3), np.uint8)
    crowd[:] = 255
    crowd[:20, :20] = COLOUR["top"]
    crowd[20:, 100:120] = COLOUR["bag"]
    Image.fromarray(crowd).save(shop.folder / "crowd.png")
    assert shop.label({"post_id": "c", "photo": "crowd.png", "products": shop.thumbnails("bag")}).done == 1


def test_a_job_that_is_asked_to_stop_hands_back_what_is_left(shop: PostShop) -> None:
    from shopvision.fashion.posts import job
    from tasks.label_posts import LabelParams

    records = [shop.post(f"p{number}", "top", seed=number) for number in range(3)]
    params = LabelParams(posts_file=shop.file(*records), detector="detector:1", classifier="classifier:1")
    keys = list(job.keys(params, lambda: False))
    assert keys == ["post p0", "post p1", "post p2"]
    assert list(job.keys(params, lambda: True)) == []
    import uuid

    chunk = job.work(params, keys, uuid.uuid4(), lambda: True)
    assert (chunk.done, chunk.remaining) == (0, keys)
    with connect() as connection:
        chunk.write(connection)
    assert labelled() == {}


def test_a_post_that_changes_or_goes_while_it_is_labelled_is_left_out(shop: PostShop) -> None:
    import uuid

    from shopvision.fashion.posts import job
    from tasks.label_posts import LabelParams

    records = [shop.post(f"p{number}", "top", seed=number) for number in range(3)]
    params = LabelParams(posts_file=shop.file(*records), detector="detector:1", classifier="classifier:1")
    chunk = job.work(params, list(job.keys(params, lambda: False)), uuid.uuid4(), lambda: False)
    with connect() as connection:
        connection.execute(delete(Post).where(Post.post_id == "p0"))
        connection.execute(update(Post).where(Post.post_id == "p1").values(content_hash=b"new"))
    for _ in range(2):  # the commit was in doubt
        with connect() as connection:
            chunk.write(connection)
        assert labelled() == {"p2": ("kept", None)}
        assert chunk.counters == {"posts_kept": 1, "pairs_kept": 1}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"detector": "nobody:1", "scope": "all"}, "There is no model version nobody:1"),
        ({"detector": "classifier:1", "scope": "all"}, "not fashion_detector"),
        ({"post_ids": ["lost", "gone"]}, "Post 'lost' and 1 more is not there: `shopvision posts import FILE`"),
        ({"posts_file": "missing.jsonl"}, "there is no such file"),
        ({"posts_file": "../outside.jsonl"}, "outside the allowed folders"),
    ],
)
def test_jobs_that_cannot_begin(shop: PostShop, params: dict[str, Any], reason: str) -> None:
    if "posts_file" in params:
        params = {**params, "posts_file": str(shop.folder / params["posts_file"])}
    job = shop.run(**params)
    assert job.state == "failed"
    assert reason in str(job.error)


def test_parameters_that_contradict_each_other_are_refused_at_once(shop: PostShop) -> None:
    for params, reason in [
        ({"post_ids": ["a"], "posts_file": "a.csv"}, "give one of post_ids, posts and posts_file"),
        ({"images": "x"}, "images goes with posts_file"),
        ({"posts_file": "posts.xlsx"}, r"posts\.xlsx: unknown format; name it \.jsonl, \.csv or \.parquet"),
        ({"posts_file": "posts.gz"}, r"posts\.gz: unknown format"),
        ({"posts_file": ""}, ": unknown format"),
        ({"posts_file": "https://shop/posts.csv"}, "https://shop/posts.csv: give s3://bucket/key, file:///folder/file"),
        ({"posts": [{"post_id": "a"}]}, "post 1: no photo"),
        ({"rules": {"max_shoes": 0}}, "max_shoes is 0: give 1 or more"),
        ({"rules": {"probability": 2}}, "probability is 2.*: give a number from 0 to 1"),
        ({"rules": {"photo_distance": 9}}, "photo_distance is 9: give 0 to 4, or null"),
        ({"rules": {"shoe": "x"}}, r"rules\.shoe: Unexpected keyword argument\. It takes: classes"),
    ]:
        with pytest.raises(UserError, match=reason):
            shop.submit(**params)


def test_without_models_a_routine_job_has_nothing_to_do(shop: PostShop) -> None:
    with connect() as connection:
        connection.execute(delete(ModelRole).where(ModelRole.role == "thumbnail_classifier"))
    job = shop.run()
    assert (job.state, job.total) == ("succeeded", 0)
    assert "No model serves the role thumbnail_classifier, so no post was labelled" in job.sentence()
    assert "No model serves the role thumbnail_classifier" in str(shop.run(scope="all").error)

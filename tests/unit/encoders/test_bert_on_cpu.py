"""A tuned encoder gives what transformers gives, and a long or short way round gives the same."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, scaled_dot_product_attention

from shopvision.encoders._fast import bert_on_cpu
from shopvision.encoders._fast.bert_on_cpu import PackedLinear, padding_bias, short_attention, tune_for_cpu
from shopvision.encoders.text_networks import build_text

CONFIG: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40,
}  # fmt: skip
NEEDS_ONEDNN = pytest.mark.skipif(
    not PackedLinear.is_possible(), reason="this processor or build of torch has no oneDNN products in bfloat16"
)


def encoder(**changes: Any) -> Any:
    torch.manual_seed(0)
    network = build_text({"model_type": "bert"} | CONFIG | changes)
    with torch.no_grad():  # else all tokens come out nearly alike
        for weight in network.parameters():
            weight.mul_(4)
    return network


def batch(*lengths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 50, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("packed", [pytest.param(True, marks=NEEDS_ONEDNN), False])
@pytest.mark.parametrize("lengths", [(9, 9, 9), (12, 7, 1, 12)])
@pytest.mark.parametrize(
    "changes",
    [{"model_type": "bert"}, {"model_type": "roberta"}, {"model_type": "xlm-roberta"}, {"hidden_act": "relu"}],
)
def test_a_tuned_encoder_gives_what_it_gave(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], lengths: tuple[int, ...], packed: bool
) -> None:
    monkeypatch.setattr(PackedLinear, "is_possible", lambda: packed)
    monkeypatch.setattr(bert_on_cpu, "_SCORES_AT_ONCE", 2 * 4 * max(lengths) ** 2)  # two sequences at once
    exact = encoder(**changes)
    plain, tuned = deepcopy(exact).to(torch.bfloat16), deepcopy(exact).to(torch.bfloat16)
    assert tune_for_cpu(tuned)
    assert any(isinstance(module, PackedLinear) for module in tuned.modules()) == packed
    assert not any(isinstance(module, torch.nn.Linear) for module in tuned.encoder.modules()) or not packed
    inputs = batch(*lengths)
    seen = inputs["attention_mask"].bool()
    with torch.inference_mode():
        expected, rounded, found = (net(**inputs).last_hidden_state[seen].double() for net in (exact, plain, tuned))
    off = (rounded - expected).abs()
    assert 0 < off.mean() < 0.05
    assert (found - expected).abs().mean() < 1.25 * off.mean()
    assert (found - expected).abs().max() < 2 * off.max()


@pytest.mark.parametrize("changes", [{"model_type": "distilbert"}, {"is_decoder": True}])
def test_other_encoders_stay_as_they_are(changes: dict[str, Any]) -> None:
    network = encoder(**changes).to(torch.bfloat16)
    before = network.config._attn_implementation
    assert not tune_for_cpu(network)
    assert not tune_for_cpu(encoder())  # float32
    assert network.config._attn_implementation == before
    assert not any(isinstance(module, PackedLinear) for module in network.modules())


@pytest.mark.parametrize("padded", [True, False])
def test_attention_by_the_formula(padded: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(5, 3, 11, 8, generator=generator) for _ in range(3))
    mask = batch(11, 4, 11, 1, 8)["attention_mask"] if padded else torch.ones(5, 11)
    bias = padding_bias(batch_size=5, kv_length=11, attention_mask=mask, dtype=torch.float32)
    assert (bias is not None) == padded
    found, weights = short_attention(torch.nn.Module(), query, key, value, bias)
    seen = (mask != 0)[:, None, None, :]
    expected = scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=seen)
    assert weights is None
    torch.testing.assert_close(found.double(), expected.transpose(1, 2), atol=1e-6, rtol=1e-5)
    scaled, _ = short_attention(torch.nn.Module(), query, key, value, bias, scaling=0.5)
    expected = scaled_dot_product_attention(query.double(), key.double(), value.double(), attn_mask=seen, scale=0.5)
    torch.testing.assert_close(scaled.double(), expected.transpose(1, 2), atol=1e-6, rtol=1e-5)


@NEEDS_ONEDNN
@pytest.mark.parametrize("rows", [1, 7, 3000])
def test_a_packed_product(rows: int) -> None:
    torch.manual_seed(3)
    linear = torch.nn.Linear(24, 40).to(torch.bfloat16)
    states = torch.randn(rows, 2, 24).to(torch.bfloat16)
    with torch.inference_mode():
        expected = states.double() @ linear.weight.double().T + linear.bias.double()
        torch.testing.assert_close(PackedLinear(linear)(states).double(), expected, atol=0.02, rtol=0.01)
        torch.testing.assert_close(PackedLinear(linear, "gelu")(states).double(), gelu(expected), atol=0.02, rtol=0.01)

"""Exact gradients in little memory: against the plain gradient of the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from shopvision.training.gradient_cache import GradientCache, micro_batches
from tests.unit.rounding import rounding


def contrastive(texts: Tensor, images: Tensor, temperature: Tensor) -> Tensor:
    logits = nn.functional.normalize(texts) @ nn.functional.normalize(images).T / temperature
    diagonal = torch.arange(len(texts))
    return nn.functional.cross_entropy(logits, diagonal) + nn.functional.cross_entropy(logits.T, diagonal)


def tiny(dtype: torch.dtype) -> tuple[nn.Module, nn.Module, nn.Parameter, Tensor, Tensor]:
    torch.manual_seed(3)
    text = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
    image = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).to(dtype)
    temperature = nn.Parameter(torch.tensor(0.1, dtype=dtype))
    return text, image, temperature, torch.randn(13, 5, dtype=dtype), torch.randn(13, 6, dtype=dtype)


def gradients(*modules: nn.Module | nn.Parameter) -> list[Tensor]:
    found = []
    for module in modules:
        for parameter in [module] if isinstance(module, nn.Parameter) else module.parameters():
            assert parameter.grad is not None
            found.append(parameter.grad.clone())
            parameter.grad = None
    return found


@pytest.mark.parametrize("size", [1, 4, 13, None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_equal_those_of_one_full_batch(size: int | None, dtype: torch.dtype) -> None:
    text, image, temperature, texts, images = tiny(dtype)
    plain = contrastive(text(texts), image(images), temperature)
    plain.backward()
    expected = gradients(text, image, temperature)

    cache = GradientCache()
    parts = micro_batches(13, size)
    loss = contrastive(
        cache.embed(text, [texts[part] for part in parts]),
        cache.embed(image, [images[part] for part in parts]),
        temperature,
    )
    cache.backward(loss)
    torch.testing.assert_close(loss, plain)
    # Rows of the batch and units of the layers are summed, and the temperature enlarges what is off by ten.
    largest = rounding(dtype, terms=2 * 13 + 8 + 4, amplified=10) * max(float(one.abs().max()) for one in expected)
    for got, wanted in zip(gradients(text, image, temperature), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=largest)


def test_dropout_draws_the_same_again() -> None:
    """The plain side draws each micro-batch's mask in the same order and keeps all graphs."""
    text, image, temperature, texts, images = tiny(torch.float64)
    text, image = nn.Sequential(text, nn.Dropout(0.4), nn.Linear(4, 4).double()), nn.Sequential(image, nn.Dropout(0.4))
    parts = micro_batches(13, 5)

    def loss_of(embed: Callable[[nn.Module, list[Tensor]], Tensor]) -> Tensor:
        torch.manual_seed(11)
        vectors = [embed(module, [rows[part] for part in parts]) for module, rows in ((text, texts), (image, images))]
        return contrastive(*vectors, temperature)

    plain = loss_of(lambda module, pieces: torch.cat([module(piece) for piece in pieces]))
    plain.backward()
    after_plain = torch.rand(1)
    expected = gradients(text, image, temperature)
    cache = GradientCache()
    loss = loss_of(cache.embed)
    cache.backward(loss)
    assert torch.equal(torch.rand(1), after_plain)  # the replay leaves the random stream where it was
    torch.testing.assert_close(loss, plain)
    for got, wanted in zip(gradients(text, image, temperature), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_micro_batches_cover_every_row_once() -> None:
    assert micro_batches(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert micro_batches(5, None) == [slice(0, 5)]
    assert micro_batches(0, 3) == []

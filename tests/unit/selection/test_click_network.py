"""The click ranker's network against its formulas, worked out in float64 without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shopvision.selection.click.network import ClickNetwork, NetworkArguments

Array = NDArray[np.float64]

D, PICTURES, ENTITIES = 6, 5, 4
COUNTS = [0, 1, 4, 2, 3]
WIDTHS: dict[str, Any] = {"dimension": D, "attention_widths": (8, 3), "head_widths": (7, 5)}
CLEANED: dict[str, Any] = {
    "weights": "normalised",
    "statistics": "layer",
    "products": True,
    "scaled": True,
    "likeness": True,
}


def random_network(**arguments: Any) -> ClickNetwork:
    torch.manual_seed(3)
    network = ClickNetwork(NetworkArguments(**WIDTHS, **arguments)).double().eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.2 if "var" in name else torch.randn_like(tensor))
    return network


def random_inputs() -> dict[str, Array]:
    generator = np.random.default_rng(5)
    shapes = {"pictures": (PICTURES, D), "texts": (PICTURES, D), "entities": (PICTURES, ENTITIES, 2 * D)}
    return {name: generator.normal(size=shape) for name, shape in shapes.items()}


def scores(network: ClickNetwork, inputs: dict[str, Array], counts: list[int]) -> Array:
    with torch.inference_mode():
        tensors = [torch.from_numpy(inputs[name]) for name in ("pictures", "texts", "entities")]
        result: Array = network(*tensors, torch.tensor(counts)).numpy()
    return result


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def by_hand(network: ClickNetwork, inputs: dict[str, Array], counts: list[int]) -> Array:
    """Section by section as published, a picture and an entity at a time."""
    w = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def linear(name: str, values: Array) -> Array:
        return np.asarray(w[f"{name}.weight"] @ values + w[f"{name}.bias"])

    def norm(values: Array) -> Array:
        if network.arguments.statistics == "batch":
            mean, variance, epsilon = w["attention.dice.norm.running_mean"], w["attention.dice.norm.running_var"], 1e-9
        else:
            mean, variance, epsilon = values.mean(), values.var(), 1e-5
        scaled = (values - mean) / np.sqrt(variance + epsilon)
        return np.asarray(scaled * w["attention.dice.norm.weight"] + w["attention.dice.norm.bias"])

    result = []
    for v, text, entities, count in zip(*inputs.values(), counts, strict=True):
        keys = [linear("key", entity) for entity in entities[:count]]
        raw = []
        for k in keys:
            x = linear("attention.first", np.concatenate([v, k, v - k, v * k]))
            raw.append(float(linear("attention.score", linear("attention.second", x * sigmoid(norm(x))))[0]))
        if network.arguments.weights == "normalised" and count:
            raw = (np.exp(raw) / np.exp(raw).sum()).tolist()
        p = sum((weight * k for weight, k in zip(raw, keys, strict=True)), np.zeros(D))
        seen = [v, text, p]
        if network.arguments.products:
            seen += [v * text * D**0.5, v * p * D**0.5]
        hidden = np.maximum(linear("first", np.concatenate(seen) * (D**0.5 if network.arguments.scaled else 1)), 0)
        result.append(linear("score", np.maximum(linear("second", hidden), 0))[0])
        if network.arguments.likeness:
            like = [v @ text, 0.0, 0.0]
            for entity in entities[:count]:
                for place, of in ((1, entity[:D]), (2, entity[D:])):
                    like[place] += v @ of / np.linalg.norm(of) / count
            result[-1] += float((w["likeness.weight"] @ like)[0]) * 10
    return np.array(result)


@pytest.mark.parametrize("arguments", [{}, CLEANED], ids=["published", "cleaned"])
def test_scores_are_those_of_the_formulas(arguments: dict[str, Any]) -> None:
    network, inputs = random_network(**arguments), random_inputs()
    found = scores(network, inputs, COUNTS)
    np.testing.assert_allclose(found, by_hand(network, inputs, COUNTS), rtol=1e-11)
    assert np.ptp(found) > 0.1


@pytest.mark.parametrize("arguments", [{}, CLEANED], ids=["published", "cleaned"])
def test_padding_says_nothing(arguments: dict[str, Any]) -> None:
    network, inputs = random_network(**arguments), random_inputs()
    other = dict(inputs, entities=inputs["entities"].copy())
    for row, count in enumerate(COUNTS):
        other["entities"][row, count:] = 1e6
    np.testing.assert_array_equal(scores(network, inputs, COUNTS), scores(network, other, COUNTS))
    longer = dict(inputs, entities=np.concatenate([inputs["entities"], np.ones((PICTURES, 3, 2 * D))], axis=1))
    np.testing.assert_allclose(scores(network, longer, COUNTS), scores(network, inputs, COUNTS), rtol=1e-12)


@pytest.mark.parametrize("arguments", [{}, CLEANED], ids=["published", "cleaned"])
def test_no_entities_are_exactly_zeros_and_have_a_gradient(arguments: dict[str, Any]) -> None:
    network, inputs = random_network(**arguments), random_inputs()
    pictures = torch.from_numpy(inputs["pictures"]).requires_grad_()
    keys = torch.from_numpy(inputs["entities"][..., :D])
    known = network.attention(pictures, keys, torch.zeros(PICTURES, dtype=torch.int64))
    assert torch.equal(known, torch.zeros_like(known))
    known.sum().backward()
    assert pictures.grad is not None
    assert torch.isfinite(pictures.grad).all()
    none = dict(inputs, entities=np.empty((PICTURES, 0, 2 * D)))
    np.testing.assert_allclose(scores(network, none, [0] * PICTURES), scores(network, inputs, [0] * PICTURES))


def test_a_picture_alone_has_the_score_it_has_among_others() -> None:
    network, inputs = random_network(), random_inputs()
    alone = {name: values[2:3] for name, values in inputs.items()}
    np.testing.assert_allclose(scores(network, alone, COUNTS[2:3]), scores(network, inputs, COUNTS)[2:3], rtol=1e-12)


def test_published_size() -> None:
    network = ClickNetwork(NetworkArguments(dimension=512))
    assert sum(weight.numel() for weight in network.parameters()) == 1_575_650
    assert network.attention.dice.norm.eps == 1e-9

"""Several encoders in one index: a query meets what its own encoder made first, in the order of the cosine."""

from __future__ import annotations

import numpy as np

from shopvision.fashion.composition.routing import Routes


def unit(count: int, dimension: int, seed: int) -> np.ndarray:
    """float32 unit vectors, among them some equal and some opposite ones, where scores are extreme."""
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    vectors[1], vectors[2] = vectors[0], -vectors[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_one_encoder_needs_no_coordinates() -> None:
    vectors = unit(5, 8, 1)
    assert Routes().coordinates == 0
    assert Routes().extend(vectors, [0] * 5) is vectors
    np.testing.assert_array_equal(Routes().similarity(np.array([0.25, -1.0])), [0.25, -1.0])


def test_labels_go_to_their_encoders() -> None:
    routes = Routes(("bag", "shoes"))
    assert [routes.of(label) for label in ("shoes", "bag", "hat", None)] == [2, 1, 0, 0]
    assert routes.coordinates == 3


def test_extended_vectors_are_worked_out_in_float64() -> None:
    routes, vectors = Routes(("bag", "shoes")), unit(6, 8, 2)
    of = np.array([0, 1, 2, 2, 1, 0])
    extended = routes.extend(vectors, of.tolist())
    expected = np.hstack([np.sqrt(0.3) * vectors.astype(np.float64), np.sqrt(0.7) * np.eye(3)[of]])
    assert extended.dtype == np.float32
    np.testing.assert_allclose(extended, expected, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(extended.astype(np.float64), axis=1), 1.0, atol=1e-6)


def test_own_route_comes_first_in_the_order_of_the_cosine_also_as_stored() -> None:
    """Opposite vectors of one encoder still stand before equal ones of another."""
    routes = Routes(("bag", "shoes"))
    queries, of_queries = unit(9, 16, 3), np.arange(9) % 3
    stored, of_stored = np.vstack([unit(60, 16, 3), unit(60, 16, 4)]), np.arange(120) % 3
    index = routes.extend(stored, of_stored.tolist()).astype(np.float16).astype(np.float64)
    products = routes.extend(queries, of_queries.tolist()).astype(np.float64) @ index.T
    cosines = queries.astype(np.float64) @ stored.astype(np.float64).T
    for query, route in enumerate(of_queries):
        own = of_stored == route
        assert products[query, own].min() > products[query, ~own].max()
        order = np.flatnonzero(own)[np.argsort(-products[query, own], kind="stable")]
        assert (np.diff(cosines[query, order]) < 0.003).all()  # rounding to float16, and no more
    np.testing.assert_allclose(routes.similarity(products), cosines, atol=0.005)

"""What the scores of an index mean, by the model that it was made with."""

from __future__ import annotations

from sqlalchemy import select

from shopvision.database import connect
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.composition.routing import Routes
from shopvision.fashion.kinds import COMPOSED_KIND
from shopvision.models.card import split_spec
from shopvision.models.tables import ModelVersion


def routes_of(spec: str) -> Routes:
    """Which encoders the vectors of the model version ``spec`` are of, without loading it: its card tells."""
    name, tag = split_spec(spec)
    with connect() as connection:
        card = connection.scalar(select(ModelVersion.card).where(ModelVersion.name == name, ModelVersion.tag == tag))
    if card is None or card["kind"] != COMPOSED_KIND:
        return Routes()
    return CompositionArguments.model_validate(card["architecture"]["arguments"]).routes

"""What the shop sells: items with their pictures, and promotion plans."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Identity, Index, LargeBinary, Numeric, SmallInteger, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.database.base import Base


class Item(Base):
    """A sellable item of the catalogue."""

    __tablename__ = "items"
    # Room for the next versions of rows on their own pages: new prices then leave many index entries alone (HOT).
    # Brands are asked for without regard to capitals, by searches; prices, which change daily, keep no index.
    __table_args__ = (Index("ix_items_lower_brand", text("lower(brand)")), {"postgresql_with": {"fillfactor": 80}})

    item_id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    brand: Mapped[str | None]
    category: Mapped[str | None] = mapped_column(index=True, comment="path, parts joined by /")
    attributes: Mapped[list[dict[str, Any]]] = mapped_column(
        server_default=text("'[]'"), comment="[{key, value}], keys may repeat"
    )
    sku_attributes: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    price: Mapped[Decimal | None] = mapped_column(Numeric)
    currency: Mapped[str | None]
    description: Mapped[str | None]
    source: Mapped[str | None] = mapped_column(comment="where it comes from: a seller, a supplier, a feed")
    extra: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'"), comment="keys of the source we have no column for"
    )
    source_updated_at: Mapped[datetime | None]
    content_hash: Mapped[bytes] = mapped_column(
        LargeBinary, comment="of the whole record, pictures included: equal means unchanged"
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemImage(Base):
    """One picture of an item. Its identity is (item, address), so that reordering pictures embeds nothing anew."""

    __tablename__ = "item_images"
    __table_args__ = (UniqueConstraint("item_id", "uri"),)

    image_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.item_id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(SmallInteger, comment="0 leads")
    uri: Mapped[str]
    view: Mapped[str | None]


class Plan(Base):
    """A promotion plan."""

    __tablename__ = "plans"

    plan_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str | None]
    date: Mapped[str | None]
    cat1: Mapped[str | None]
    cat2: Mapped[str | None]
    cat3: Mapped[str | None]
    cat4: Mapped[str | None]
    keywords: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    extra: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PlanItem(Base):
    """Membership of an item in a plan. The item may arrive in the catalogue after the plan, so it is no foreign key."""

    __tablename__ = "plan_items"

    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.plan_id", ondelete="CASCADE"), primary_key=True)
    item_id: Mapped[str] = mapped_column(primary_key=True, index=True)
    position: Mapped[int]

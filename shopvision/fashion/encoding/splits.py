"""Sides of a training: what hangs together by a product, a style, a post or a picture is on one of them."""

from __future__ import annotations

from collections.abc import Sequence

from shopvision.errors import UserError
from shopvision.fashion.encoding.pairs import Pair, PairData
from shopvision.training.parting import common_folder, components, draw


def split_pairs(data: PairData, shares: Sequence[float], seed: int) -> list[PairData]:
    """The training pairs, and for each share its own, with nothing shared between any two of them.

    A component's side depends on its content and the seed as far as shares allow, not on the order of the file or the
    folder that holds the pictures. Shares are of pairs of two pictures; the further products are searched among on
    every side.

    Args:
        data: to be parted.
        shares: of validation, and of test if there is one; 0 gives an empty side.
        seed: of the draw.

    Raises:
        UserError: a side would stay empty, or far below its share, because too much hangs together.
    """
    numbers = components([pair.bound for pair in data.pairs])
    members: dict[int, list[Pair]] = {}
    for number, pair in zip(numbers, data.pairs, strict=True):
        members.setdefault(number, []).append(pair)

    folder = common_folder([view.uri for pair in data.pairs for view in (pair.anchor, pair.positive)])

    def drawn(number: int) -> bytes:
        return draw(min(key.replace(folder, "") for pair in members[number] for key in pair.bound), seed)

    measured = len(data.measured)
    left = sorted(members, key=drawn)
    sides: list[PairData] = []
    for share in shares:
        wanted, chosen = round(share * measured), set[int]()
        size = 0
        for number in left:
            adds = sum(not pair.is_single for pair in members[number])
            if size + adds <= wanted:
                chosen.add(number)
                size += adds
            if size == wanted:
                break
        if share and (not size or size < wanted / 2):
            raise UserError(
                f"{measured:,} pairs hang together in {len(members):,} groups by products, posts and pictures, and "
                f"cannot be parted with a share of {share:g}: add pairs, or name a file for data.valid."
            )
        left = [number for number in left if number not in chosen]
        kept = {id(pair) for number in chosen for pair in members[number]}
        sides.append(data.with_pairs(pair for pair in data.pairs if id(pair) in kept))
    kept = {id(pair) for number in left for pair in members[number]}
    train = data.with_pairs(pair for pair in data.pairs if id(pair) in kept)
    if not train.pairs:
        raise UserError(f"Validation takes all {measured:,} pairs: lower data.valid_fraction.")
    return [train, *sides]


def require_apart(train: PairData, other: PairData) -> None:
    """Refuse to measure on what was trained on.

    Raises:
        UserError: names what both have.
    """
    both = {key for pair in train.pairs for key in pair.bound} & {key for pair in other.pairs for key in pair.bound}
    if both:
        raise UserError(
            f"The {min(both)} is in training and validation ({len(both):,} such): what is measured would be what was "
            "learnt by heart. Remove it from one of the files."
        )

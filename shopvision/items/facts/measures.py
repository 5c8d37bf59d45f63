"""Numbers with units: ``1 TB`` is ``1000 GB`` and ``1024 GB``, ``12 in`` is ``30.5 cm``, ``16 oz`` is ``454 g``.

Two measures in one unit are equal where their numbers are. In different units they are equal as far as the finer is
written: ``30.5 cm`` may be anything from 30.45 to 30.55, and nothing is more than 1.5 % off. Units of storage are
powers of 1000 to one writer and of 1024 to another, so either reading will do, in both alike; ``500 GB`` and
``512 GB`` stay apart in both.

What is written like a unit and is none is left out: ``5G``, ``802.11g``, ``3 in 1``, ``3 to 5 years``, ``2023升级版``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from shopvision.items.facts.folding import BEGINS, ENDS

# dimension -> factor to its base -> how the unit is written, folded
_UNITS: dict[str, dict[float, str]] = {
    "length": {  # metre
        1e-6: "um µm micron microns",
        1e-3: "mm millimeter millimeters millimetre millimetres 毫米 밀리미터",
        1e-2: "cm centimeter centimeters centimetre centimetres 厘米 公分 센티미터 센티",
        1.0: "m meter meters metre metres mtr 米 미터",
        0.0254: "in inch inches zoll pouces 英寸 寸 吋 인치",
        0.3048: "ft foot feet 英尺 피트",
        0.9144: "yd yard yards 码长 야드",
    },
    "mass": {  # gram
        1e-3: "mg milligram milligrams 毫克",
        1.0: "g gr gram grams gramm 克 그램",
        1e3: "kg kgs kilo kilos kilogram kilograms 千克 公斤 킬로 킬로그램",
        500.0: "斤",
        28.349523125: "oz ounce ounces 盎司 온스",
        453.59237: "lb lbs pound pounds 磅 파운드",
    },
    "volume": {  # litre
        1e-3: "ml cc milliliter milliliters millilitre millilitres 毫升 밀리리터",
        1e-2: "cl",
        1.0: "l ltr liter liters litre litres 升 리터",
        0.0295735295625: "floz",
        3.785411784: "gal gallon gallons 加仑 갤런",
    },
    "frequency": {1e3: "khz", 1e6: "mhz", 1e9: "ghz"},
    "power": {1.0: "w watt watts 瓦 와트", 1e3: "kw kilowatt 千瓦"},
    "voltage": {1.0: "v volt volts 伏 볼트"},
    "charge": {1e-3: "mah 毫安 毫安时", 1.0: "ah"},
    "pixels": {1.0: "mp mpx mpix megapixel megapixels", 1e-2: "万像素 만화소", 1e-6: "像素 화소"},
    "rotation": {1.0: "rpm 转 u/min"},
    "rate": {1e6: "mbps mbit mbit/s", 1e9: "gbps gbit gbit/s"},
    "duration": {1 / 60: "min mins minute minutes 分钟 분", 1.0: "hr hrs hour hours 小时 시간"},
    "lines": {1.0: "p"},
    "share": {1.0: "% percent 퍼센트"},
    "loudness": {1.0: "db"},
    "light": {1.0: "lm lumen lumens 流明 루멘"},
    "factor": {1.0: "x 倍 배"},
    "cores": {1.0: "core cores 核 코어"},
}
_STORAGE = {"kb": 1, "mb": 2, "gb": 3, "tb": 4, "pb": 5, "mo": 2, "go": 3, "to": 4, "기가": 3, "테라": 4}
_KNOWN = {
    unit: (dimension, factor)
    for dimension, units in _UNITS.items()
    for factor, written in units.items()
    for unit in written.split()
}
_MOST_SLACK = 0.015
_EQUAL = 1e-6

# "12 in black" has no inches, nor "3 to 5" terabytes: behind a blank the word needs a sign that it ends there.
_WORDS = {unit for unit in (*_KNOWN, *_STORAGE) if unit not in {"in", "to", "x"}}
_ASCII = "|".join(sorted((re.escape(unit) for unit in _WORDS if unit.isascii()), key=len, reverse=True))
_OTHER = "|".join(sorted((re.escape(unit) for unit in _WORDS if not unit.isascii()), key=len, reverse=True))
_NUMBER = rf"{BEGINS}(?<![.,/])(?P<number>\d{{1,3}}(?:,\d{{3}}){{1,4}}(?:\.\d+)?|\d{{1,15}}(?:[.,]\d+)?)"
_END = rf"(?:{ENDS}|(?=x\d{{1,3}}{ENDS}))"  # also of 250mlx24, not of 42px80u
_NO_UNIT = "级|降|拉|色|粉|接|换|(?<=转)\\d"  # 升级 upgrade, 克拉 carat, 米色 beige, 转接 adapter
_MEASURE = re.compile(
    rf"{_NUMBER}(?:[ \-]?(?P<ascii>{_ASCII}){_END}|[ ]?(?P<other>{_OTHER})(?!{_NO_UNIT})"
    rf"|-?(?P<bare>in|to){_END}(?!-\d)"
    r"|[ ](?P<apart>in(?=[.,;)]|$|[ ]?[x*][ ]?\d)|to(?=[ ](?:ssd|hdd|sata|nvme|de)(?!\w)|[ ]?[^\w ]|$))"
    r"|(?P<inch>\"|''|\u2032\u2032|\u201d)(?![\w@])|(?P<times>x)(?!\w))"
)
_MULTIPLE = re.compile(r"(?<![\w.])(\d{1,3})[ ]?[x*][ ]?(?=\d)")
_FLUID_OUNCES = re.compile(rf"(?<=\d)[ \-]?(?:fl\.?|fluid)[ ]?(?:oz|ounces?){ENDS}")
_MOST_INCHES = 150  # a larger number before a quotation mark ends what is quoted
_GENERATIONS = range(2, 7)  # of mobile networks: 5G
_SEPARATED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with a unit.

    Attributes:
        dimension: what it measures: length, mass, storage and so on.
        number: as written.
        unit: factor to the base unit of the dimension; of storage the power of 1000 or 1024.
        slack: how far off the number may be, by how it is written.
    """

    dimension: str
    number: float
    unit: float
    slack: float

    def equals(self, other: Measure) -> bool:
        """Whether both say the same."""
        if self.dimension != other.dimension:
            return False
        if self.unit == other.unit:
            return self.number == other.number
        if self.dimension == "storage":
            return any(
                abs(self.number * base**self.unit / (other.number * base**other.unit) - 1) < _EQUAL
                for base in (1000.0, 1024.0)
            )
        room = min(self.slack * self.unit, other.slack * other.unit)
        return abs(self.number * self.unit - other.number * other.unit) <= room


def measures(text: str) -> frozenset[Measure]:
    """The measures in a text that is folded, see ``folding``."""
    return frozenset(_found_measures(text))


def _found_measures(text: str) -> Iterator[Measure]:
    if not any(map(str.isdigit, text)):
        return
    # "2x8gb" and "10 x 15 cm": the number behind is one of its own.
    text = _MULTIPLE.sub(lambda found: found[0].replace("x", " ").replace("*", " "), text)
    text = _FLUID_OUNCES.sub("floz", text).replace("만 화소", "만화소")
    for found in _MEASURE.finditer(text):
        unit = found["ascii"] or found["other"] or found["bare"] or found["apart"] or ("x" if found["times"] else "in")
        if found["inch"] and (number_of(found["number"]) > _MOST_INCHES or "\u201c" in text[: found.start()]):
            continue  # it ends what is quoted
        if measure := _measure(found["number"], unit):
            yield measure


@lru_cache(maxsize=2**14)
def _measure(written: str, unit: str) -> Measure | None:
    number = number_of(written)
    if number == 0 or (unit == "g" and number in _GENERATIONS) or written.startswith("802.11"):
        return None
    decimals = len(written.rpartition("." if "." in written else ",")[2]) if number != int(number) else 0
    slack = min(0.5 * 10.0**-decimals, _MOST_SLACK * number)
    if unit in _STORAGE:
        return Measure("storage", number, _STORAGE[unit], 0.0)
    dimension, factor = _KNOWN[unit]
    return Measure(dimension, number, factor, slack)


def number_of(written: str) -> float:
    """``1,288.99`` and ``2,5`` as numbers: a comma before three digits separates thousands."""
    if _SEPARATED.fullmatch(written):
        return float(written.replace(",", ""))
    return float(written.replace(",", "."))

"""How many pieces are sold together, in which size, and for whom: ``6-pack``, ``42码``, ``사이즈 L``, ``women's``."""

from __future__ import annotations

import re
from typing import Final

from shopvision.items.facts.folding import BEGINS, ENDS

_DIGITS = {"一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}
_NUMERALS = {"twin": 2, "double": 2, "triple": 3, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_CONTENTS = "ml|cl|l|g|kg|gb|mb|tb|oz"
_PACK = re.compile(
    r"(?:pack|set|lot|box|bundle|case) of (?P<of>\d{1,4}|two|three|four|five|six)(?!\w)"
    r"|(?<![\w.,])(?P<before>\d{1,4})[ \-]?(?:pack|packs|pk|pcs|pc|pieces|piece|ct|count|er[- ]?pack|stück|stk|pièces"
    r"|pezzi|piezas)(?!\w)"
    r"|(?<!\w)(?P<word>twin|double|triple|two|three|four|five|six)[ \-]?pack(?!\w)"
    r"|(?<![\d.,一两二三四五六七八九十百千万])(?P<chinese>\d{1,4}|[一两二三四五六七八九十]{1,3})[ ]?"
    r"(?:件套|件装|只装|个装|片装|包装|袋装|盒装|瓶装|支装"
    r"|双装|条装|枚入"
    r"|(?:件|只|个|片|包|袋|盒|瓶|支|双|条|罐)(?![\u4e00-\u9fff]))"
    rf"|{BEGINS}(?<![.,])(?P<korean>\d{{1,4}})[ ]?"
    r"(?:개입|개 세트|개세트|매입|입|개|매|팩|병|봉|켤레|세트)(?![\uac00-\ud7af])"
    rf"|{BEGINS}(?<![.,])(?P<times>\d{{1,3}})[ ]?[x*][ ]?\d+(?:[.,]\d+)?[ ]?(?:{_CONTENTS}){ENDS}"
    rf"|\d(?:[ ]?(?:ml|cl|l|g|kg|oz)[ ]?[x*][ ]?|(?:gb|mb|tb)[x*])(?P<after>\d{{1,3}}){ENDS}(?![.,]\d|[ ]?[x*])"
    r"|(?:^|(?<=[ ,(]))[x*](?P<behind>(?!(?:64|86)\b)\d{1,3})(?![\w.])"
)

_LETTERS = ["xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl", "2xl", "3xl", "4xl", "5xl"]
_SAME_SIZE: Final = {"2xl": "xxl", "3xl": "xxxl", "均": "one", "free": "one", "프리": "one"}
_ONE = "one[ -]?size|均码|프리[ ]?사이즈|free[ ]?size"
_SIZE = re.compile(
    rf"(?P<one>{_ONE})"
    rf"|{BEGINS}(?:size|sizes|größe|gr\.|taille|talla|taglia|maat|rozmiar|eu|uk|us|尺码|尺寸|사이즈)[ :.\-]{{0,2}}"
    rf"(?P<named>{'|'.join(sorted(_LETTERS, key=len, reverse=True))}|\d{{1,3}}(?:[.,]5)?){ENDS}(?![.,]\d)"
    rf"|{BEGINS}(?P<alone>xxs|xs|xl|xxl|xxxl|[2-5]xl){ENDS}"
    rf"|{BEGINS}(?<!\.)(?P<code>xxs|xs|s|m|l|xl|xxl|xxxl|[2-5]xl|\d{{2}}(?:\.5)?)[ ]?(?:码|号|호){ENDS}"
    r"|[-/(,](?P<edge>s|m|l)(?=[-/),]|$)"
)
_SYSTEMS = re.compile(r"(?<!\w)(eu|uk|us)[ :.\-]{0,2}\d")

_FOR = {
    "women": (
        "women womens woman lady ladies female damen femme femmes donna mujer dames damskie wmns "
        "女 女士 女款 女装 여성 여자"
    ),
    "men": ("men mens man male gents herren homme hommes uomo hombre heren męskie 男 男士 男款 男装 남성 남자"),
    "children": (
        "kids kid child children junior youth boys girls boy girl toddler infant baby gs kinder enfant enfants "
        "bambino bambini niño niños dziecięce 儿童 童 童装 男童 女童 宝宝 婴儿 아동 키즈 유아"
    ),
}
_AUDIENCE = {word: who for who, words in _FOR.items() for word in words.split()}
_IN_CHINESE = re.compile("(男童|女童|儿童|童装|宝宝|婴儿|[男女](?:士|款|装|式|鞋|包|表))")
_WORDS = re.compile(r"[^\W\d_]+")


def pack_counts(text: str) -> frozenset[int]:
    """How many pieces a text says there are; texts of this module are folded, see ``folding``."""
    found = set()
    for match in _PACK.finditer(text):
        written = match[match.lastgroup or 0]
        found.add(_NUMERALS.get(written) or _count(written))
    return frozenset(found - {0})


def _count(written: str) -> int:
    """Digits, or a Chinese number below 100: ``十二``, ``二十``."""
    tens, ten, ones = written.rpartition("十")
    if ten or written in _DIGITS:
        return (_DIGITS.get(tens, 1) * 10 if ten else 0) + _DIGITS.get(ones, 0)
    return int(written) if written.isdecimal() else 0


def sizes(text: str) -> frozenset[str]:
    """Sizes of clothes and shoes that a text names: letters, or numbers with their system where it is told."""
    found = set()
    for match in _SIZE.finditer(text):
        if match["one"]:
            found.add("one")
            continue
        written = match[match.lastgroup or 0].replace(",", ".")
        system = _SYSTEMS.match(match[0])
        found.add(f"{system[1]} {written}" if system else _SAME_SIZE.get(written, written))
    return frozenset(found)


def audience(text: str) -> frozenset[str]:
    """For whom a text says the item is: women, men, children."""
    words = (word.removesuffix("용") for word in _WORDS.findall(text))  # 여성용: for women
    found = {_AUDIENCE[word] for word in words if word in _AUDIENCE}
    for match in _IN_CHINESE.finditer(text):
        found.add("children" if (match[0] not in _AUDIENCE and match[0][0] not in "男女") or "童" in match[0]
                  else "men" if match[0][0] == "男" else "women")  # fmt: skip
    return frozenset(found)

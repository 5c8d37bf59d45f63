"""Colours by family in English, Chinese, Korean and the larger European languages: ``navy``, ``藏青`` and ``blau``.

Shops name shades at will; what two offers of one thing share is the family. A word that mostly means something else
(French ``or``) is left out, and in Chinese, where words have no blanks around them, a single character needs ``色``
behind it or nothing at all around it.
"""

from __future__ import annotations

import re

_FAMILIES = {
    "black": (
        "black blk schwarz noir noire nero nera negro negra zwart czarny czarna czarne preto "
        "黑色 纯黑 曜石黑 블랙 검정 검은 검정색"
    ),
    "white": (
        "white weiss weiß blanc blanche bianco bianca blanco blanca wit biały biała białe branco ivory "
        "白色 纯白 米白 象牙白 화이트 흰색 하얀 하양 아이보리"
    ),
    "grey": (
        "grey gray grau gris grigio grijs szary szara szare anthracite anthrazit charcoal graphite "
        "灰色 深灰 浅灰 银灰 그레이 회색 차콜"
    ),
    "silver": ("silver silber argent argento plata zilver srebrny 银色 실버 은색"),
    "red": (
        "red rot rouge rosso rossa rojo roja rood czerwony czerwona czerwone burgundy maroon crimson "
        "scarlet bordeaux "
        "红色 大红 酒红 레드 빨강 빨간 와인색 버건디"
    ),
    "pink": ("pink rosa rose roze różowy różowa fuchsia magenta 粉色 粉红 玫红 핑크 분홍 분홍색"),
    "orange": ("orange arancione arancio naranja oranje pomarańczowy 橙色 橘色 橘红 오렌지 주황 주황색"),
    "yellow": (
        "yellow gelb jaune giallo gialla amarillo amarilla geel żółty żółta żółte "
        "黄色 柠檬黄 옐로우 옐로 노랑 노란 노란색"
    ),
    "green": (
        "green grün gruen vert verte verde groen zielony zielona zielone olive khaki mint lime "
        "绿色 军绿 墨绿 卡其色 그린 초록 녹색 카키 민트"
    ),
    "blue": (
        "blue blau bleu bleue blu azul blauw niebieski niebieska niebieskie granatowy navy cyan turquoise "
        "teal "
        "蓝色 深蓝 浅蓝 天蓝 藏青 宝蓝 블루 파랑 파란 파란색 네이비 남색 하늘색"
    ),
    "purple": ("purple violet violett lila violeta viola paars fioletowy lavender 紫色 薰衣草紫 퍼플 보라 보라색"),
    "brown": ("brown braun brun marron marrone marrón bruin brązowy chocolate tan 棕色 咖啡色 褐色 브라운 갈색"),
    "beige": ("beige beżowy cream champagne 米色 杏色 驼色 香槟色 베이지"),
    "gold": ("gold golden oro dorado złoty goud 金色 土豪金 玫瑰金 골드 금색"),
}
_FAMILY = {word: family for family, words in _FAMILIES.items() for word in words.split()}
_CHINESE = "\u4e00-\u9fff"
_IN_CHINESE = "|".join(sorted((word for word in _FAMILY if re.match(f"[{_CHINESE}]", word)), key=len, reverse=True))
_SINGLE = {"黑": "black", "白": "white", "灰": "grey", "银": "silver", "红": "red", "粉": "pink", "橙": "orange",
           "黄": "yellow", "绿": "green", "蓝": "blue", "紫": "purple", "棕": "brown", "金": "gold"}  # fmt: skip
_FOUND = re.compile(
    rf"(?P<chinese>{_IN_CHINESE})|(?<![{_CHINESE}])(?P<single>[{''.join(_SINGLE)}])(?![{_CHINESE}])|[^\W\d_{_CHINESE}]+"
)
_KOREAN_END = re.compile("(?:색|컬러|계열)$")


def colours(text: str) -> frozenset[str]:
    """Families of the colours that a text names that is folded, see ``folding``."""
    found = set()
    for match in _FOUND.finditer(text):
        word = match[0]
        family = _SINGLE.get(word) or _FAMILY.get(word) or _FAMILY.get(_KOREAN_END.sub("", word))
        if family:
            found.add(family)
    return frozenset(found)

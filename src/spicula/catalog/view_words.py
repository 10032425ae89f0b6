"""Sides, views and modifiers as people and machines write them: "RMLO", "L-CC Spot", "MLO links", "RCC ID".

Two grammars. A label is what stands on a film by the ACR Mammography Quality Control Manual 1999 (PS3.16, CID 4014 and
CID 4015, last columns): side, modifiers before, view, modifiers behind, run together. A description is free text, in
which only what cannot be misread counts: short letters count beside a view, words of a side anywhere.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Modifiers before and behind a view, of the ACR manual -> flag of the Index.
_BEFORE = {"S": "spot-compression", "M": "magnification"}
_BEHIND = {"ID": "implant-displaced"} | dict.fromkeys(
    ("RL", "RM", "RI", "RS", "NP", "AC", "IMF", "AX"), "other-modifier"
)
# Labels that replace that of the view that they modify (CID 4015): axillary tail of MLO, cleavage of CC, tangential.
_REPLACING = {"AT": "MLO", "CV": "CC", "TAN": None}
_VIEWS = ("XCCL", "XCCM", "XCC", "CC", "MLO", "LMO", "SIO", "ISO", "ML", "LM", "FB")
# These letters mean other things too (ISO 400, ml): in a description they need a side beside them.
_AMBIGUOUS = frozenset(("ML", "LM", "FB", "ISO", "SIO"))
_LABEL = re.compile(
    rf"(?P<side>[LR])?(?P<before>[SM]{{0,2}}?)(?P<view>{'|'.join((*_VIEWS, *_REPLACING))})"
    rf"(?P<behind>(?:{'|'.join(_BEHIND)})*)\d{{0,2}}"
)
# Left or right axillary tail by the manual; everywhere else "lateral", which says nothing of the direction.
_NOT_LABELS = frozenset(("LAT",))

_LEFT = "left links linke linken linker linkes gauche izquierda izquierdo izq sinistra sinistro esquerda esquerdo"
_RIGHT = "right rechts rechte rechten rechter rechtes droite droit derecha derecho destra destro direita direito"
_SIDES: Mapping[str, str] = dict.fromkeys(_LEFT.split(), "L") | dict.fromkeys(_RIGHT.split(), "R")
_SHORT_SIDES: Mapping[str, str] = {"l": "L", "lt": "L", "li": "L", "sx": "L", "r": "R", "rt": "R", "re": "R", "dx": "R"}
_BOTH = re.compile(r"\b(both|bilat\w{0,6}|beid\w{1,6}|bds|ambas|entrambe)\b")
# Whole words of views, in text without accents and with spaces for all else than letters and digits.
_OBLIQUE = r"(?:oblique|obliqua|obliquo|oblicua|schrag)\b"
_WORDS_OF_VIEWS = (
    (re.compile(rf"\bmedio ?lateral[eo]? {_OBLIQUE}"), "mlo"),
    (re.compile(rf"\b(?:latero ?medial[eo]?) {_OBLIQUE}"), "lmo"),
    (re.compile(r"\b(?:cranio|kranio|craneo) ?[ck]aud[ao]le?\b"), "cc"),
    (re.compile(r"\bcc exaggerated lat\w*"), "xccl"),
    (re.compile(r"\bcc exaggerated med\w*"), "xccm"),
    (re.compile(r"\bcc exaggerated\b|\bexaggerated cc\b"), "xcc"),
)
_FLAG_WORDS = (
    ("spot-compression", r"spot|spots|spotkompression|spot ?view|cone ?down|coned"),
    ("magnification", r"mag|magn|magnif|magnification|magnified|magview|vergrosserung|vergroesserung"),
    ("magnification", r"agrandissement|ampliacion|ampliacao|ingrandimento|magnificacion"),
    ("implant-displaced", r"implant ?displaced|implants? displaced|eklund|push ?back|displaced implant"),
    ("other-modifier", r"rolled|cleavage|tangential|axillary tail|nipple in profile"),
    ("specimen", r"specimen|praparat|praeparat|piece operatoire"),
    (
        "synthetic-2d",
        r"c ?view|s ?view|v ?preview|(?:insight|intelligent|synthetic|synthesi[sz]ed|generated) ?2 ?d|s2d",
    ),
    ("tomosynthesis-slice", r"tomo|tomosynthesis|tomosynthese|tomosintesis|tomosintesi|tomohd|dbt"),
)
_FLAGS = tuple((flag, re.compile(rf"\b(?:{words})\b")) for flag, words in _FLAG_WORDS)


@dataclass(frozen=True)
class Words:
    """What a label or a description says.

    Attributes:
        laterality: L or R; None where it says neither, or both.
        view: CC, MLO, ...; None where it names none, or several.
        flags: those of `spicula.index.FLAGS` that it names.
    """

    laterality: str | None = None
    view: str | None = None
    flags: frozenset[str] = field(default_factory=frozenset)


def read_label(text: str) -> Words | None:
    """Return what a label such as RMLO, MCC or LCCID says, or None when it is no label."""
    letters = re.sub(r"[^A-Z0-9]", "", text.upper())
    found = None if letters in _NOT_LABELS or len(letters) > 16 else _LABEL.fullmatch(letters)
    if not found:
        return None
    flags = {_BEFORE[letter] for letter in found["before"]}
    flags |= {_BEHIND[code] for code in re.findall("|".join(_BEHIND), found["behind"])}
    view = found["view"]
    if view in _REPLACING:
        return Words(found["side"], _REPLACING[view], frozenset(flags | {"other-modifier"}))
    return Words(found["side"], view, frozenset(flags))


def read_description(text: str) -> Words:
    """Return what a free text says of an image: at most one side and one view, and flags."""
    plain = _plain(text)
    for pattern, label in _WORDS_OF_VIEWS:
        plain = pattern.sub(label, plain)
    tokens = plain.split()
    # "bilateral" speaks of the exam: then only a side beside a view is that of the image
    sides = set() if _BOTH.search(plain) else {_SIDES[token] for token in tokens if token in _SIDES}
    views: set[str] = set()
    flags = {flag for flag, pattern in _FLAGS if pattern.search(plain)}
    for place, words in _labels(tokens):
        beside = _sides_beside(tokens, place) | ({words.laterality} if words.laterality else set())
        if _means_something_else(tokens, place, bool(beside)):
            continue
        sides |= beside
        views |= {words.view} if words.view else set()
        flags |= words.flags | _modifiers_beside(tokens, place)
    if "synthetic-2d" in flags:
        flags.discard("tomosynthesis-slice")  # "tomosynthesis, generated 2D" is one image
    side = sides.pop() if len(sides) == 1 else None
    return Words(side, views.pop() if len(views) == 1 else None, frozenset(flags))


def _plain(text: str) -> str:
    """Return lower case without accents, and one space for anything that is neither letter nor digit."""
    letters = unicodedata.normalize("NFKD", text[:256].lower().replace("ß", "ss"))
    return re.sub(r"[^a-z0-9]+", " ", "".join(one for one in letters if not unicodedata.combining(one))).strip()


def _labels(tokens: Sequence[str]) -> Iterator[tuple[int, Words]]:
    for place, token in enumerate(tokens):
        words = read_label(token)
        if words is not None:
            yield place, words


def _means_something_else(tokens: Sequence[str], place: int, has_side: bool) -> bool:
    letters = tokens[place].upper()
    if letters in _REPLACING:  # "at 3 o'clock"
        return True
    after_number = place > 0 and tokens[place - 1].isdigit()  # 5 ml
    return letters in _AMBIGUOUS and (after_number or not has_side)


def _sides_beside(tokens: Sequence[str], place: int) -> set[str]:
    """Return the sides that the tokens beside a view say, also with a modifier between (L SPOT CC)."""
    places = [place - 1, place + 1]
    if place >= 2 and _is_modifier(tokens[place - 1]):
        places.append(place - 2)
    beside = [tokens[at] for at in places if 0 <= at < len(tokens)]
    return {side for token in beside if (side := _SHORT_SIDES.get(token) or _SIDES.get(token))}


def _is_modifier(token: str) -> bool:
    return token.upper() in _BEFORE or any(pattern.fullmatch(token) for _, pattern in _FLAGS)


def _modifiers_beside(tokens: Sequence[str], place: int) -> set[str]:
    """Return the flags of modifiers that stand apart from their view: M CC, CC ID."""
    before = _BEFORE.get(tokens[place - 1].upper()) if place else None
    behind = _BEHIND.get(tokens[place + 1].upper()) if place + 1 < len(tokens) else None
    return {flag for flag in (before, behind) if flag}

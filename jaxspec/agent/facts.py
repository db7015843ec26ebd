"""Facts of a run, each with a key, and the checker that holds a text to them.

In a text every number is followed by its unit and, in square brackets, the key of the fact that it comes
from: `Teff of HD 1 is 5772 K [HD1.teff]`. The checker compares value, rounding, sign, unit, star, quantity
and claims of comparison with the facts, and reports what it does not find there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import NamedTuple


@dataclass(frozen=True)
class Fact:
    """One thing that is known.

    Attributes:
        key: unique; letters, digits, dots, dashes and underscores.
        value: a number, or a word such as a cause.
        unit: as text writes it; empty for pure numbers and words.
        quantity: what it is; those of `WORDS` are recognised in texts.
        star: whose; None for the whole run.
    """

    key: str
    value: float | str
    unit: str = ""
    quantity: str = ""
    star: str | None = None


# Words by which texts mean a physical quantity; the one that stands last before a number is meant.
WORDS: dict[str, tuple[str, ...]] = {
    "teff": ("effective temperature", "temperature", "teff"),
    "logg": ("surface gravity", "gravity", "log g", "logg"),
    "fe_h": ("metallicity", "[fe/h]", "iron abundance"),
    "al_h": ("[al/h]", "aluminium"),
    "mg_h": ("[mg/h]", "magnesium"),
    "ca_h": ("[ca/h]", "calcium"),
    "ni_h": ("[ni/h]", "nickel"),
    "ti_h": ("[ti/h]", "titanium"),
    "si_h": ("[si/h]", "silicon"),
    "snr": ("signal-to-noise ratio", "signal-to-noise", "s/n"),
    "chi2": ("reduced chi-square", "chi-square", "chi2"),
    "velocity": ("radial velocity", "velocity"),
    "p_cause": ("probability",),
}
# Adjectives of comparison: the quantity, and whether more of it is meant; None: that of the facts.
COMPARED: dict[str, tuple[str | None, bool]] = {
    "hotter": ("teff", True), "cooler": ("teff", False), "warmer": ("teff", True),
    "higher": (None, True), "lower": (None, False), "larger": (None, True), "smaller": (None, False),
    "greater": (None, True), "more metal-rich": ("fe_h", True), "more metal-poor": ("fe_h", False),
    "brighter": ("snr", True), "fainter": ("snr", False), "above": (None, True), "below": (None, False),
    "exceeds": (None, True),
}  # fmt: skip
SUPERLATIVES: dict[str, tuple[str | None, bool]] = {
    "hottest": ("teff", True), "coolest": ("teff", False), "highest": (None, True), "lowest": (None, False),
    "largest": (None, True), "smallest": (None, False), "most metal-rich": ("fe_h", True),
    "most metal-poor": ("fe_h", False),
}  # fmt: skip
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve dozen half twice double thrice "
    "third quarter hundred thousand million none both all every most no"
).split()
# Words of number that say nothing to be checked.
HARMLESS = {"one", "no", "most", "all", "every", "both", "none", "half", "third", "quarter"}
KEY = re.compile(r"\[([A-Za-z0-9_.\-]+)\]")
NUMBER = re.compile(r"(?<![\w.])[+\-−–]?\d[\d,]*(?:\.\d+)?(?:[eE][+\-]?\d+)?")
UNITS = ("km/s", "dex", "K", "%", "A", "Å", "s", "min", "h", "mag")


class Objection(NamedTuple):
    """Claims that the checker did not find in the facts."""

    what: str
    where: str


class Checker:
    """Holds texts to facts.

    Args:
        facts: all that may be said.
        names: further names that hold digits and are no numbers (arms, files, instruments, labels).
    """

    def __init__(self, facts: Iterable[Fact], names: Iterable[str] = ()):
        self.facts = {fact.key: fact for fact in facts}
        self.stars = sorted({f.star for f in self.facts.values() if f.star}, key=len, reverse=True)
        self.names = sorted({*names, *WORDS_WITH_DIGITS}, key=len, reverse=True)
        self.values = {str(f.value) for f in self.facts.values() if isinstance(f.value, str)}

    def check(self, text: str) -> list[Objection]:
        """All objections to a text; none where every claim is in the facts."""
        return [objection for sentence in sentences(text) for objection in self._sentence(sentence)]

    def _sentence(self, sentence: str) -> list[Objection]:
        out: list[Objection] = []
        keys = [match[1] for match in KEY.finditer(sentence) if match[1] in self.facts]
        unknown = [m[1] for m in KEY.finditer(sentence) if m[1] not in self.facts and "/" not in m[1]]
        out += [Objection(f"no fact has the key {key!r}", sentence) for key in unknown]
        plain = self._without_names(sentence)
        out += self._numbers(plain, sentence)
        out += self._stars(sentence, keys)
        out += self._comparisons(plain, sentence, keys)
        out += self._words(sentence)
        return out

    def _without_names(self, sentence: str) -> str:
        """The sentence with names of stars, arms and labels blanked, so that their digits are no numbers."""
        for name in (*self.stars, *self.names):
            pattern = re.compile(r"(?<![\w.])" + re.escape(name) + r"(?![\w]|\.[\w])")
            sentence = pattern.sub(lambda m: "~" * len(m[0]), sentence)
        return sentence

    def _numbers(self, plain: str, sentence: str) -> list[Objection]:
        out = []
        hidden = KEY.sub(lambda m: " " * len(m[0]), plain)
        for match in NUMBER.finditer(hidden):
            shown = match[0]
            rest = plain[match.end() :]
            unit, rest = _unit(rest)
            key = re.match(r"\s*\[([A-Za-z0-9_.\-]+)\]", rest)
            if key is None:
                out.append(Objection(f"the number {shown} has no key", sentence))
                continue
            fact = self.facts.get(key[1])
            if fact is None:
                continue  # said already
            if isinstance(fact.value, str) or not agrees(shown, float(fact.value)):
                out.append(Objection(f"{shown} is not {fact.value} of {fact.key}", sentence))
            if unit != fact.unit:
                out.append(Objection(f"unit {unit!r} of {fact.key} is {fact.unit!r}", sentence))
            said = quantity_before(plain[: match.start()])
            if fact.quantity in WORDS and said is not None and said != fact.quantity:
                out.append(Objection(f"{fact.key} is no {said}", sentence))
        for word in re.findall(r"[a-z]+", hidden.lower()):
            if word in NUMBER_WORDS and word not in HARMLESS:
                out.append(Objection(f"the number word {word!r} cannot be traced", sentence))
        return out

    def _stars(self, sentence: str, keys: Sequence[str]) -> list[Objection]:
        rest, named = KEY.sub(" ", sentence), set()
        for star in self.stars:
            pattern = re.compile(r"(?<![\w.])" + re.escape(star) + r"(?![\w]|\.[\w])")
            if pattern.search(rest):
                named.add(star)
                rest = pattern.sub(" ", rest)
        meant = {star for star in (self.facts[key].star for key in keys) if star}
        out = [Objection(f"{star} is named, but no fact of it", sentence) for star in sorted(named - meant)]
        if named or any(self.facts[key].star for key in keys):
            out += [
                Objection(f"facts of {star}, which is not named", sentence) for star in sorted(meant - named)
            ]
        out += self._order(sentence, keys, named)
        return out

    def _order(self, sentence: str, keys: Sequence[str], named: set[str]) -> list[Objection]:
        """With several stars in a sentence, a fact belongs to the star named last before it."""
        if len(named) < 2:
            return []
        places = []
        for star in named:
            pattern = re.compile(r"(?<![\w.\[])" + re.escape(star) + r"(?![\w\]]|\.[\w])")
            places += [(m.start(), star) for m in pattern.finditer(sentence)]
        places.sort()
        out = []
        for match in KEY.finditer(sentence):
            fact = self.facts.get(match[1])
            before = [star for at, star in places if at < match.start()]
            if fact is not None and fact.star and before and before[-1] != fact.star:
                out.append(Objection(f"{fact.key} is not of {before[-1]}", sentence))
        return out

    def _comparisons(self, plain: str, sentence: str, keys: Sequence[str]) -> list[Objection]:
        low, out = KEY.sub(" ", plain).lower(), []
        numbers = [self.facts[key] for key in keys if not isinstance(self.facts[key].value, str)]
        used = re.findall(
            r"(?:\b(?:more|less)\s+[\w\-]+|\b\w+er)\s+than\b|\bexceeds\b|\babove\b|\bbelow\b", low
        )
        for phrase in used:
            word = re.sub(r"\s+than$", "", phrase)
            if word not in COMPARED:
                out.append(Objection(f"the comparison {phrase!r} cannot be checked", sentence))
                continue
            quantity, more = COMPARED[word]
            pair = [f for f in numbers if quantity is None or f.quantity == quantity]
            if len(pair) != 2 or pair[0].quantity != pair[1].quantity:
                out.append(Objection(f"{phrase!r} needs two facts of one quantity", sentence))
            elif not (float(pair[0].value) > float(pair[1].value)) == more or pair[0].value == pair[1].value:
                out.append(Objection(f"{phrase!r} is not so", sentence))
        for word, (quantity, more) in SUPERLATIVES.items():
            if re.search(rf"\b{word}\b", low):
                own = [f for f in numbers if f.star and (quantity is None or f.quantity == quantity)]
                if len(own) != 1:
                    out.append(Objection(f"{word!r} needs one fact of one star", sentence))
                    continue
                alike = [
                    float(f.value)
                    for f in self.facts.values()
                    if f.star and not isinstance(f.value, str) and _what(f) == _what(own[0])
                ]
                if float(own[0].value) != (max(alike) if more else min(alike)):
                    out.append(Objection(f"{word!r} is not so", sentence))
        return out

    def _words(self, sentence: str) -> list[Objection]:
        """Words that are values of facts (causes, flags) carry the key of one that says so."""
        out, low = [], sentence
        for value in sorted(self.values, key=len, reverse=True):
            if not value:
                continue
            for match in re.finditer(
                rf"(?<![\w|]){re.escape(value)}(?![\w|])(\s*\[([A-Za-z0-9_.\-]+)\])?", low
            ):
                fact = self.facts.get(match[2] or "")
                if fact is None or str(fact.value) != value:
                    out.append(Objection(f"{value!r} is not said by a fact", sentence))
            low = re.sub(rf"(?<![\w|]){re.escape(value)}(?![\w|])", "~", low)
        return out


# Names with digits that no fact is asked for.
WORDS_WITH_DIGITS = ("HR10", "HR21", "hr10", "hr21", "chi2", "68 %", "16th", "84th")


def sentences(text: str) -> list[str]:
    """A text cut into sentences, lines of lists and cells of tables."""
    out = []
    for line in text.splitlines():
        line = line.strip()
        if not line or set(line) <= set("|-: "):
            continue
        out += [part.strip() for part in re.split(r"(?<=[.;!?])\s+(?=[A-Z~])", line) if part.strip()]
    return out


def agrees(shown: str, value: float) -> bool:
    """Whether a number is a value, rounded to the digits shown; a sign is part of it."""
    text = shown.replace(",", "").replace("−", "-").replace("–", "-")
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    half = 0.5 * 10.0**exponent
    if exponent >= 0 and number != 0:  # zeros at the end of a whole number are digits
        half = 0.5
    return abs(float(number) - value) <= half * (1.0 + 1e-6) and not (
        number != 0 and float(number) * value < 0.0
    )


def quantity_before(text: str) -> str | None:
    """The quantity whose word stands last before a number."""
    low, best, place = text.lower(), None, -1
    for quantity, words in WORDS.items():
        for word in words:
            at = low.rfind(word)
            if at >= 0 and at + len(word) > place:
                best, place = quantity, at + len(word)
    return best


def _what(fact: Fact) -> tuple[str, str, str]:
    """The quantity of a fact, without its star: facts of one quantity may be compared."""
    return fact.key.rpartition(".")[2], fact.quantity, fact.unit


def _unit(rest: str) -> tuple[str, str]:
    """The unit at the beginning of a text, and what follows it."""
    for unit in UNITS:
        match = re.match(rf"\s*{re.escape(unit)}(?![\w/])", rest)
        if match:
            return unit, rest[match.end() :]
    return "", rest

r"""Splits a scalar answer into number, unit, percent sign, number base and currency; tells whether two are comparable.

A unit or currency may be left out of one side; where both sides carry one, they must agree (or convert exactly). A
gold percentage may be answered without its sign. A number base is never optional, unless the question names it.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_UNITS: dict[str, tuple[str, Fraction]] = {}  # name -> (dimension, size in the dimension's own measure)


def _define(dimension: str, table: dict[str, str]) -> None:
    for names, size in table.items():
        for name in names.split():
            _UNITS[name] = (dimension, Fraction(size))


_define(
    "length",
    {
        "m meter meters metre metres": "1",
        "km kilometer kilometers kilometre kilometres": "1000",
        "cm centimeter centimeters centimetre centimetres": "1/100",
        "mm millimeter millimeters millimetre millimetres": "1/1000",
        "inch inches": "127/5000",
        "ft foot feet": "381/1250",
        "yd yard yards": "1143/1250",
        "mile miles mi": "201168/125",
    },
)
_define("mass", {"g gram grams": "1", "kg kilogram kilograms": "1000", "mg milligram milligrams": "1/1000"})
_define("mass'", {"lb lbs pound pounds": "16", "oz ounce ounces": "1", "ton tons": "32000"})
_define(
    "time",
    {
        "s sec secs second seconds": "1",
        "min mins minute minutes": "60",
        "h hr hrs hour hours": "3600",
        "day days": "86400",
        "week weeks": "604800",
    },
)
_define("years", {"year years yr yrs": "12", "month months": "1"})
_define("volume", {"l liter liters litre litres": "1", "ml milliliter milliliters": "1/1000"})
_define("dollar", {"dollar dollars usd": "1", "cent cents ¢ penny pennies": "1/100"})
_define("euro", {"euro euros €": "1"})
_define("pound sterling", {"£": "1"})
_define("rupee", {"rupee rupees rs inr ₹": "1"})
_define("yen", {"yen ¥ jpy": "1"})
_define("ohm", {"ohm ohms Ω": "1", "kΩ": "1000"})
_define("newton", {"N newton newtons": "1", "kN": "1000"})
_define("joule", {"J joule joules": "1", "kJ": "1000", "MJ": "1000000"})
_define("watt", {"W watt watts": "1", "kW": "1000", "MW": "1000000"})
_define("volt", {"V volt volts": "1", "kV": "1000", "mV": "1/1000"})
_define("ampere", {"A amp amps ampere amperes": "1", "mA": "1/1000"})
_define("pascal", {"Pa": "1", "kPa": "1000", "MPa": "1000000"})
_define("hertz", {"Hz hertz": "1", "kHz": "1000", "MHz": "1000000", "GHz": "1000000000"})
_define("coulomb", {"coulomb coulombs": "1"})
_define("kelvin", {"K kelvin kelvins": "1"})
_define("mole", {"mol mole moles": "1"})
for _symbol in "GB MB KB kB TB Gb Mb eV keV MeV dB Wb cal kcal atm bar psi AU lm lx Mm Gm Mg Gg ML Ms ms ns".split():
    _UNITS.setdefault(_symbol, (_symbol, Fraction(1)))
_define("degree", {"degree degrees deg °": "1"})
_define("celsius", {"°c": "1"})
_define("fahrenheit", {"°f": "1"})
_define("radian", {"radian radians rad": "1"})
for _word in (
    "unit units people person persons students student ways way times points point apples marbles books "
    "men women boys girls children cars coins balls cards sides edges vertices faces triangles games days hours "
    "integers numbers solutions values digits pages gallon gallons cup cups pint pints quart quarts acre acres "
    "calories watts volts joules newtons amperes ohms hertz pairs words bits bytes cubes squares tickets "
    "quarters dimes nickels votes seats outcomes arrangements handshakes questions problems bushels revolutions rpm"
).split():
    _UNITS.setdefault(_word, (_word.rstrip("s"), Fraction(1)))

_OTHER_IN_CAPITALS = frozenset(
    ["M", "Mm", "MM", "Mg", "MG", "ML", "Ml", "G", "S", "H", "MIN"]
)  # no m, mm, mg, ml, g, s, h
_NO_UNIT = frozenset(  # words behind a number that change it, or say that it is not the whole answer
    "and or not no nor neither none nothing than then more less fewer greater over under above below least most about "
    "around approximately approx roughly nearly almost maybe perhaps possibly probably either if when unless except "
    "but is isn are was were be wrong incorrect false true right plus minus times multiplied divided by squared "
    "cubed factorial power root log ln sin cos tan exp mod modulo remainder base negative positive half halves third "
    "thirds fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths "
    "hundredth hundredths thousandth thousandths millionth millionths one two three four five six seven eight nine ten "
    "eleven twelve twenty thirty forty fifty sixty seventy eighty ninety zero infinity to from through between up down "
    "instead actually however percent double triple twice pi mean inclusive exclusive same undefined "
    "unknown any every for with without past till until at sqrt abs st nd rd th".split()
)
_TIMES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_AREA = {"sq": 2, "square": 2, "cubic": 3, "cu": 3}
_WORD_BASES = dict(
    zip(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split(),
        range(2, 17),
        strict=True,
    )
)
_DIGITS = r"(?P<digits>-?(?:[0-9A-Za-z]*[0-9][0-9A-Za-z.]*|[A-F]{2,}|[a-f]{2,}))"
_BASE = re.compile(
    rf"(?P<open>\(?){_DIGITS}(?(open)\)?)\s*_\s*(?:\{{[\s(]*(?:\\(?:text|mathrm)\s*\{{\s*)?(?P<braced>\w+)[\s)}}]*\}}|(?P<bare>\d+))"
)
_SPELLED_BASE = re.compile(rf"{_DIGITS}\s*,?\s*\(?\s*(?:in )?base[ -]*\$?(?P<braced>\w+)\$?\s*\)?")
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:st|nd|rd|th)\s*\}?")
_MONEY = re.compile(r"(?P<number>.*\d)\s*(?P<sign>\\\$|€|£|¥|₹)")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|textit|hbox|textsuperscript)\s*\{([^{}]*)\}")
_PERCENT = re.compile(r" ?(?:\\?%|\\text\s*\{\s*(?:\\?%|percent|pct)\s*\}|percent(?:age)?(?: points?)?|pct\.?)\s*$")
_SIGN = re.compile(r"^([-+]?)\s*(?:\\text\s*\{\s*)?(\\?\$|\\pounds|£|€|¥|₹|Rs\b\.?|INR\b|USD\b)(?:\s*\})?\s*")
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*(?:\\text\s*\{)?\s*([CF])?\s*\}?\s*$")
_TAIL = re.compile(  # one piece of a unit at the end of a text
    r"(?:\\(?:text|mbox|mathrm|textrm|textbf|textit|hbox) ?\{[^{}]{1,60}\}|\\Omega|(?<![\\A-Za-z])[A-Za-z¢][A-Za-z.¢]{0,20}|\^ ?(?:\{ ?-?\d ?\}|-?\d)"  # noqa: E501
    r"|/|\\cdot) ?$"
)
_TAIL_LENGTH, _TAIL_PIECES = 120, 10


def _tail(text: str) -> int:
    """Where the longest run of unit pieces at the end of a text starts."""
    start = low = max(len(text) - _TAIL_LENGTH, 0)
    end = len(text)
    for _ in range(_TAIL_PIECES):
        match = _TAIL.search(text[low:end])
        if match is None:
            break
        end = start = low + match.start()
    return start if end < len(text) else len(text)


@dataclass(frozen=True)
class Quantity:
    """One scalar answer, taken apart.

    Attributes:
        number: The LaTeX of the number itself.
        unit: Canonical unit text, '' without one.
        scale: The size of the unit in its dimension's own measure.
        percent: Whether a percent sign follows.
        base: The number base of a subscript, 0 without one.
        weak: Whether the unit is a bare letter, which may as well be a variable: 5m.
    """

    number: str
    unit: str = ""
    scale: Fraction = Fraction(1)
    percent: bool = False
    base: int = 0
    weak: bool = False


def split_quantity(text: str) -> Quantity:
    """Takes a cleaned scalar answer apart; what is no known unit stays in `number`."""
    text = text.strip()
    if match := _PERCENT.search(text):
        return Quantity(text[: match.start()].strip(), percent=True)
    words = text if "\\text" not in text else _TEXT.sub(r"\1", text)
    if match := _BASE.fullmatch(text) or _SPELLED_BASE.fullmatch(words):
        name: Any = match["braced"] or match["bare"]
        base = _WORD_BASES.get(name.lower(), int(name) if name.isdigit() and len(name) < 4 else 0)
        if base >= 2:
            return Quantity(match["digits"].lstrip("0").upper() or "0", base=base)
    if match := _ORDINAL.fullmatch(words):
        return Quantity(match[1], "ordinal")
    if match := _MONEY.fullmatch(text):
        text = match["sign"] + match["number"]
    if match := _SIGN.match(text):
        unit = {
            "£": "pound sterling",
            "\\pounds": "pound sterling",
            "€": "euro",
            "¥": "yen",
            "₹": "rupee",
            "INR": "rupee",
            "Rs": "rupee",
            "Rs.": "rupee",
        }.get(match[2], "dollar")
        rest = split_quantity(text[match.end() :])
        if rest.unit in ("", unit) and not rest.percent and rest.scale == 1:
            return Quantity(match[1] + rest.number, unit)
        return Quantity(text)
    if match := _DEGREES.search(text):
        if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", text) is None:
            return Quantity(text[: match.start()].strip(), {"C": "celsius", "F": "fahrenheit"}.get(match[1], "degree"))
        return Quantity(text)
    start = _tail(text)
    if 0 < start < len(text) and (found := _unit(text[start:])):
        unit, scale, times = found
        number = text[:start].strip()
        weak = "\\" not in text[start:] and re.search("[A-Za-z¢]{2}", text[start:]) is None
        return Quantity(number if times == 1 else f"({number})\\cdot {times}", unit, scale, weak=weak)
    return Quantity(text)


def _unit(text: str) -> tuple[str, Fraction, int] | None:
    """The canonical name and size of a unit text such as `\\text{ cm}^2` or `million miles`, with its multiplier."""
    dressed = "\\" in text
    text = _TEXT.sub(r" \1 ", text).replace("\\Omega", "Ω")
    text = text.replace("\\cdot", " ").replace("{", "").replace("}", "")
    spelled = re.sub(r"\b[Pp][Ee][Rr]\b", "/", text)
    spelled = re.sub(r"\b([mMkK])[pP]/?[hH]\b", lambda match: "mile/hour" if match[1] in "mM" else "km/hour", spelled)
    top, scale, power, sign, last, times = [], Fraction(1), 1, 1, Fraction(1), 1
    words = unknown = 0
    for token in re.findall(r"(?:[^\W\d_]|[¢°.'-])+|\^\s*-?\d|/|\S", spelled):
        exact = token.strip(".")
        token = exact.lower()
        words += token.isalpha()
        if token == "/":
            sign = -1
        elif token in _AREA:
            power = _AREA[token]
        elif token.startswith("^"):
            if not top:
                return None
            name, old = top[-1]
            extra = int(token[1:].strip()) - 1
            scale *= last ** (extra * (1 if old > 0 else -1))
            top[-1] = (name, old * (extra + 1))
        elif token in ("of", "the", "a", "", "long", "old", "tall", "total") and exact not in _UNITS:
            continue
        elif token in _TIMES and not top:
            times *= _TIMES[token]
        elif exact in _UNITS or (token in _UNITS and exact not in _OTHER_IN_CAPITALS):
            name, last = _UNITS.get(exact) or _UNITS[token]
            top.append((name, sign * power))
            scale *= last ** (sign * power)
            power = 1
        elif _may_be_unit(exact, dressed):
            name, last = token.rstrip("s") if len(token) > 3 else exact, Fraction(1)
            top.append((name, sign * power))
            power, unknown = 1, unknown + 1
        else:
            return None
    if unknown and (words > 4 or not top):
        return None
    if not top and times == 1:
        return None
    return " ".join(f"{name}^{n}" if n != 1 else name for name, n in sorted(top)), scale, times


def _may_be_unit(word: str, dressed: bool) -> bool:
    r"""Whether a word nobody listed may be a unit: one in \text{...}, or a longer one in plain letters."""
    bare = word.replace("-", "").replace("'", "")
    if not bare.isalpha() or not set(word.lower().split("-")).isdisjoint(_NO_UNIT) or word.lower() in _NO_UNIT:
        return False
    if not (bare.islower() or bare.istitle()) or re.search("[aeiouyáéíóúäöü]", bare.lower()) is None:
        return False
    return len(bare) >= (3 if dressed else 4)


def conversion_factor(gold: Quantity, given: Quantity) -> Fraction | None:
    """The factor that turns `given`'s number into `gold`'s unit; None when the two units do not fit."""
    if not gold.unit or not given.unit:
        return Fraction(1)
    return given.scale / gold.scale if gold.unit == given.unit else None

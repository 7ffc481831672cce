"""Units of measurement: what one is in others of its kind, by sympy."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from sympy import Expr, Integer
from sympy.physics import units as known
from sympy.physics.units import Quantity, convert_to
from sympy.physics.units.prefixes import PREFIXES

# What sympy calls by another name.
_OTHERWISE = {
    **dict.fromkeys(("hr", "hrs"), "hour"),
    **dict.fromkeys(("min", "mins"), "minute"),
    **dict.fromkeys(("sec", "secs"), "second"),
    **dict.fromkeys(("lb", "lbs"), "pound"),
    "mph": "mile/hour",
    **dict.fromkeys(("kph", "kmh"), "kilometer/hour"),
    **dict.fromkeys(("litre", "litres"), "liter"),
    **dict.fromkeys(("inches", "in"), "inch"),
    **dict.fromkeys(("Ω", "Omega", "ohms"), "ohm"),
    **dict.fromkeys(("deg", "°"), "degree"),
    "mi": "mile",
}
# Of one letter, sympy's name is that of a constant, or of nothing.
_LETTERS = {
    "m": known.meter,
    "g": known.gram,
    "s": known.second,
    "h": known.hour,
    "l": known.liter,
    "L": known.liter,
    "A": known.ampere,
    "K": known.kelvin,
    "N": known.newton,
    "J": known.joule,
    "W": known.watt,
    "V": known.volt,
    "C": known.coulomb,
    "F": known.farad,
    "T": known.tesla,
    "H": known.henry,
    "S": known.siemens,
}
_BASE = [
    *(known.meter, known.kilogram, known.second, known.ampere, known.kelvin, known.mole, known.candela),
    *(known.radian, known.bit),
]
_POWERS = {"square": 2, "cubic": 3, "squared": 2, "cubed": 3}
_PART = re.compile(r"(?P<sign>[/*·]|\bper\b)|(?P<name>[^\W\d_]+|[°Ω])(?:\s*\^?\s*(?P<power>-?\d))?|\s+")


@lru_cache(maxsize=1024)
def quantity(unit: str) -> tuple[Expr, Any]:
    """(what a unit is times its base units, those). A counted noun is a base unit of its own, whatever its number."""
    made = _measured(unit)
    if made is None:
        return Integer(1), " ".join(word.removesuffix("s") for word in unit.casefold().split())
    factor, base = convert_to(made, _BASE).as_independent(*_BASE, as_Add=False)
    return factor, base


def _measured(unit: str) -> Any:
    """The unit as sympy's; None if a part of it is unknown."""
    made: Any = Integer(1)
    place, under, waiting = 0, False, 1
    while place < len(unit):
        match = _PART.match(unit, place)
        if match is None:
            return None
        place = match.end()
        if match["sign"]:
            under = match["sign"] in ("/", "per")
        elif match["name"] in _POWERS and match["name"].endswith("d"):
            made *= made ** (_POWERS[match["name"]] - 1)
        elif match["name"] in _POWERS:
            waiting = _POWERS[match["name"]]
        elif match["name"]:
            one = _unit(match["name"])
            if one is None:
                return None
            made *= one ** ((-1 if under else 1) * waiting * int(match["power"] or 1))
            under, waiting = False, 1
    return made if made != 1 else None


def _unit(name: str) -> Any:
    if name in _OTHERWISE:
        return _measured(_OTHERWISE[name])
    if len(name) == 1:
        return _LETTERS.get(name)
    found = getattr(known, name, None) or getattr(known, name.casefold(), None)
    if _is_unit(found):
        return found
    # A prefix: MHz, kW, mV.
    prefix = PREFIXES.get("mu" if name[0] in "uµμ" else name[0])
    inner = _LETTERS.get(name[1:]) or getattr(known, name[1:], None)
    return prefix.scale_factor * inner if prefix is not None and _is_unit(inner) else None


def _is_unit(found: Any) -> bool:
    return isinstance(found, Quantity) and not getattr(found, "is_physical_constant", False)

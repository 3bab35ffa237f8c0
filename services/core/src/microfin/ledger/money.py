"""Money: currencies of ISO 4217 and exact amounts in integer minor units.

An amount is an `int` of minor units inside the system and a decimal string outside. On the wire it
is *canonical*: it has no sign, no leading zeros, no exponent and no trailing zeros after the point
(`"12.3"`, never `"12.30"`), so that one amount has one text and one body hash.
"""

import re
from typing import Final

BALANCE_LIMIT: Final = 10**15
"""The highest balance that a deposit or a credit may reach, in minor units.

Refunds may exceed it: 64 bits can hold more than nine thousand times this balance.
"""

# ISO 4217, list one, as SIX published it on 2026-01-01 (a test compares it with the list in the
# package iso4217). A currency that is withdrawn stays here, so that its accounts can still be used.
# The exponent of a currency never changes: it defines what stored amounts mean.
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_FOUR_DECIMALS = "CLF UYW"
_TWO_DECIMALS = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD "
    "CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS "
    "GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD "
    "LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB "
    "PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP "
    "SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW "
    "ZWG"
)

EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(_NO_DECIMALS.split(), 0),
    **dict.fromkeys(_TWO_DECIMALS.split(), 2),
    **dict.fromkeys(_THREE_DECIMALS.split(), 3),
    **dict.fromkeys(_FOUR_DECIMALS.split(), 4),
}
"""Currency code to the number of decimals of its minor unit (ISO 4217, list one)."""

HIGHEST_EXPONENT: Final = max(EXPONENTS.values())

_CANONICAL = re.compile(r"(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,17}[1-9])?", re.ASCII)
_READABLE = re.compile(r"([0-9]{1,40})(?:\.([0-9]{1,40}))?", re.ASCII)


class InvalidAmount(ValueError):
    """A text is not a positive, exact decimal amount; the message says why."""


class TooManyDecimals(InvalidAmount):
    """An amount has more decimals than its currency."""


def canonical_amount(text: str) -> str:
    """Return the canonical form of a positive decimal `text` such as `"0012.30"`.

    Raises `InvalidAmount` for signs, exponents, any text that is not digits with at most one point,
    zero, more decimals than any currency has, and amounts above the balance limit.
    """
    match = _READABLE.fullmatch(text)
    if match is None:
        raise InvalidAmount("An amount is digits with at most one decimal point, such as 12.50.")
    whole, fraction = match[1].lstrip("0"), (match[2] or "").rstrip("0")
    if not whole and not fraction:
        raise InvalidAmount("An amount must be greater than zero.")
    if len(fraction) > HIGHEST_EXPONENT:
        raise InvalidAmount(f"No currency has more than {HIGHEST_EXPONENT} decimals.")
    if len(whole) > len(str(BALANCE_LIMIT)):
        raise InvalidAmount("The amount is larger than any account may hold.")
    return f"{whole or '0'}.{fraction}" if fraction else whole


def is_canonical_amount(text: str) -> bool:
    """Return whether `text` is a canonical amount; zero is one."""
    return _CANONICAL.fullmatch(text) is not None


def to_minor_units(amount: str, currency: str) -> int:
    """Return canonical `amount` in the minor units of `currency`.

    Raises `TooManyDecimals` if the currency has fewer decimals than the amount.
    """
    whole, _, fraction = amount.partition(".")
    exponent = EXPONENTS[currency]
    if len(fraction) > exponent:
        raise TooManyDecimals(f"{currency} has {exponent} decimals.")
    return int(whole + fraction.ljust(exponent, "0"))


def to_decimal_text(minor_units: int, currency: str) -> str:
    """Return `minor_units` as people read them, with all decimals of `currency`: `"12.30"`."""
    exponent = EXPONENTS[currency]
    if exponent == 0:
        return str(minor_units)
    sign = "-" if minor_units < 0 else ""
    digits = str(abs(minor_units)).rjust(exponent + 1, "0")
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"


def to_canonical_amount(minor_units: int, currency: str) -> str:
    """Return `minor_units` of `currency` as the wire writes them: `"12.3"`."""
    text = to_decimal_text(minor_units, currency)
    return text.rstrip("0").rstrip(".") if "." in text else text

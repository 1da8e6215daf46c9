"""What is known to look for: addresses, numbers and secrets that answers should not give away.

Each is a pattern and, where the thing has a check digit, a check, so that not every long number counts.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple


def luhn(text: str) -> bool:
    """Say whether the digits in ``text`` have the check digit of payment cards (ISO/IEC 7812-1)."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def resident(text: str) -> bool:
    """Say whether ``text`` is a resident identity number of China, by its check digit (GB 11643-1999)."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, text, strict=False))
    return "10X98765432"[total % 11] == text[17].upper()


_IBAN: Final = re.compile(r"[^0-9A-Z]")


def iban(text: str) -> bool:
    """Say whether ``text`` is an international bank account number, by its check digits (ISO 13616)."""
    account = _IBAN.sub("", text.upper())
    turned = account[4:] + account[:4]
    return len(account) >= 15 and int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


class Detector(NamedTuple):
    """A pattern, in `re`'s syntax, and the rest of a `penstock.policies.patterns.Pattern`."""

    about: str
    pattern: str
    check: Callable[[str], bool] | None = None
    gate: str = ""
    tail: tuple[str, str] | None = None


DETECTORS: Final[Mapping[str, Detector]] = {
    "email": Detector(
        "e-mail addresses",
        r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24}(?![\w-])",
        tail=("@", r"(?<![\w.+-])[\w.+-]{1,64}\Z"),
    ),
    "phone": Detector(
        "telephone numbers: international with +, mobile numbers of China, numbers of North America",
        r"(?<![\w+])(?:\+[1-9](?:[ ().-]{0,2}\d){6,14}|1[3-9]\d(?:[ -]?\d{4}){2}"
        r"|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4})(?!\d)",
        gate=r"[\d+(]",
    ),
    "card": Detector(
        "numbers of payment cards, by their check digit",
        r"(?<![\d-])[2-6]\d{3}(?:[ -]?\d){9,15}(?!\d)",
        luhn,
        r"\d",
    ),
    "cn_id": Detector(
        "resident identity numbers of China, by their check digit",
        r"(?<!\d)[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\d)",
        resident,
        r"\d",
    ),
    "us_ssn": Detector(
        "social security numbers of the United States",
        r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])",
        gate=r"\d",
    ),
    "iban": Detector(
        "international bank account numbers, by their check digits",
        r"(?<![0-9a-z])[a-z]{2}\d\d(?: ?[0-9a-z]){11,30}(?![0-9a-z])",
        iban,
        r"(?<![0-9a-z])[a-z](?:\Z|[a-z](?:\Z|\d))",
    ),
    "ip": Detector(
        "IPv4 addresses",
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d)(?!\d)",
        gate=r"\d",
    ),
    "api_key": Detector(
        "keys and tokens of well-known services, JSON Web Tokens, heads of private keys",
        r"(?<![\w-])(?:sk-[\w-]{16,200}|gh[opsur]_\w{30,100}|github_pat_\w{30,100}|AKIA[0-9A-Z]{16}"
        r"|AIza[\w-]{35}|xox[abeprs]-[\w-]{10,100}|hf_\w{30,60}|glpat-[\w-]{20,60}"
        r"|eyJ[\w-]{10,600}\.eyJ[\w-]{10,600}\.[\w-]{10,400}"
        r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----)(?![\w-])",
        gate=r"(?<![\w-])(?:s(?:k|\Z)|g[hli]|a[ki]|xo|hf|ey|--|[gaxhe-]\Z)",
    ),
}

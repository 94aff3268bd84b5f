"""Tells from names and values which fields are probably personal."""

import re
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

PERSONAL_WORDS = "email mail phone mobile ip address street ssn iban passport birthday birthdate dob fax surname"
"""Words in the names of personal fields."""
NAMES_OF_PEOPLE = "first last middle full given family maiden nick user customer person contact"
"""Words before `name` in the names of fields that name people."""


def why_personal(name: str, looks: str) -> str:
    """Say why a field is probably personal; empty if it is not.

    Args:
        name: In snake case.
        looks: What its values look like; see `looks_personal`.
    """
    words = name.split("_")
    is_name = words[-1] == "name" and (words == ["name"] or not set(NAMES_OF_PEOPLE.split()).isdisjoint(words))
    if looks:
        return f"values that look like {looks}"
    return "its name" if is_name or not set(PERSONAL_WORDS.split()).isdisjoint(words) else ""


def looks_personal(texts: Sequence[str]) -> str:
    """Say what most of the values look like, such as e-mail addresses; empty if they do not look personal."""
    looked_at = texts[:100]
    for what, looks in (("e-mail addresses", _is_email), ("IP addresses", _is_ip), ("phone numbers", _is_phone)):
        if 2 * sum(map(looks, looked_at)) > len(looked_at):
            return what
    return ""


def _is_email(text: str) -> bool:
    return re.fullmatch(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}", text) is not None


def _is_ip(text: str) -> bool:
    with suppress(ValueError):
        return ("." in text or ":" in text) and bool(ip_address(text))
    return False


def _is_phone(text: str) -> bool:
    return re.fullmatch(r"\+[0-9]([ ()/.-]*[0-9]){6,14}", text) is not None

"""Names on the leaderboard: a pseudonym for everyone, an alias for whoever has earned one."""

import secrets
import unicodedata

_COLOURS = (
    "Amber Azure Coral Crimson Emerald Golden Indigo Ivory Jade Lilac Maroon Ochre Olive Pearl Rose Ruby Saffron "
    "Scarlet Silver Teal Umber Violet"
).split()
_ANIMALS = (
    "Badger Bison Crane Curlew Dolphin Falcon Finch Fox Gecko Hare Heron Ibex Jackdaw Koala Lark Lynx Marten Newt "
    "Ocelot Otter Owl Panda Puffin Quail Raven Robin Seal Stork Swift Tapir Toad Vole Walrus Weasel Wren Yak"
).split()
_REFUSED = ("admin", "moderator", "researcher", "system", "nazi", "hitler", "fuck", "cunt", "nigger", "rapist")
LENGTH = (3, 24)  # characters of an alias


def pseudonym() -> str:
    """A random name such as "Amber Heron 4127"."""
    return f"{secrets.choice(_COLOURS)} {secrets.choice(_ANIMALS)} {secrets.randbelow(9000) + 1000}"


def alias(wish: str) -> tuple[str, str]:
    """The alias as it will be shown and its key, equal for aliases that differ in case or spacing only.

    Letters and digits of any script, single spaces, and . _ - ' between them. Raises ValueError saying what is wrong;
    markup, control, bidirectional and zero-width characters are refused by not being in that list.
    """
    if len(wish) > 200:  # before any work on it
        raise ValueError(f"An alias has {LENGTH[0]} to {LENGTH[1]} characters.")
    shown = " ".join(unicodedata.normalize("NFKC", wish).split(" ")).strip()
    if not LENGTH[0] <= len(shown) <= LENGTH[1]:
        raise ValueError(f"An alias has {LENGTH[0]} to {LENGTH[1]} characters.")
    marks = 0
    for character in shown:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Mc") else 0
        if marks > 2 or not (category[0] == "L" or category in ("Nd", "Mn", "Mc") or character in " ._-'"):
            raise ValueError("An alias may have letters, digits, spaces and . _ - ' only.")
    if "  " in shown or not (shown[0].isalnum() and any(c.isalpha() for c in shown)):
        raise ValueError("An alias starts with a letter or digit, has a letter, and no two spaces in a row.")
    key = "".join(c for c in unicodedata.normalize("NFKD", shown.casefold()) if c.isalnum())
    if any(word in key for word in _REFUSED):
        raise ValueError("Please choose another alias.")
    return shown, key

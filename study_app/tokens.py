"""What the server signs: the participant's cookie, one token per pair shown, completion codes, names in exports.

Every signature is an HMAC-SHA256 under the store's secret and says what it is for, so that none passes for another.
"""

import hashlib
import hmac
import re
import secrets

ID = re.compile(r"[0-9a-f]{32}")


def random_id() -> str:
    """128 random bits as hex."""
    return secrets.token_hex(16)


def signature(secret: str, purpose: str, *values: str) -> str:
    """The first 128 bits, as hex, of an HMAC over the purpose and the values."""
    message = "\x00".join([purpose, *values]).encode()
    return hmac.new(bytes.fromhex(secret), message, hashlib.sha256).hexdigest()[:32]


def seal(secret: str, purpose: str, name: str, *values: str) -> str:
    """`name`, an id, with its signature: what the browser holds."""
    return f"{name}.{signature(secret, purpose, name, *values)}"


def unseal(secret: str, purpose: str, sealed: object, *values: str) -> str | None:
    """The id in a sealed text, or None where anything about it is wrong."""
    if not isinstance(sealed, str):
        return None
    name, _, signed = sealed.partition(".")
    if not ID.fullmatch(name) or not signed.isascii():
        return None
    return name if hmac.compare_digest(signed, signature(secret, purpose, name, *values)) else None


def cookie_name(secret: str) -> str:
    """The name of a store's cookie: browsers send a host's cookies to all its ports, and so to other studies there."""
    return f"participant_{signature(secret, 'cookie')[:8]}"


def identity_hash(identity: str) -> str:
    """What the store keeps of a participant's cookie: enough to know it again, not enough to pretend to be it."""
    return hashlib.blake2b(identity.encode(), digest_size=32).hexdigest()


def completion_code(secret: str, study: str, participant: str) -> str:
    """The code that a participant hands to whoever recruited them, such as 7F3A-09BC-D21E."""
    code = signature(secret, "completion", study, participant)[:12].upper()
    return "-".join(code[i : i + 4] for i in range(0, 12, 4))


def export_name(secret: str, participant: str) -> str:
    """A participant's name in exports: stable over exports, and not to be traced back to pseudonym or cookie."""
    return "p" + signature(secret, "export", participant)[:12]

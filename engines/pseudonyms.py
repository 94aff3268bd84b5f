"""The key with which personal fields are hashed.

It is in a table of the schema raw, whose readers can read the hashed values anyway, and never in a statement, since dbt
logs statements.
"""

import hashlib
import secrets

from pydantic import SecretStr

BLOCK_BYTES = 64
"""Block size of SHA-256."""


def pads(key: SecretStr | None) -> tuple[bytes, bytes]:
    """The inner and the outer pad of HMAC-SHA256 (RFC 2104), 64 bytes each. Without a key, a random one is used."""
    given = key.get_secret_value().encode() if key else secrets.token_bytes(32)
    block = (given if len(given) <= BLOCK_BYTES else hashlib.sha256(given).digest()).ljust(BLOCK_BYTES, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)

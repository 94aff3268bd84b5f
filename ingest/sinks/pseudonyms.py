"""The key of the hashes of personal fields: a table of the warehouse, beside the raw messages, whose reader knows what
was hashed anyway. No statement has it, since dbt logs statements."""

import hashlib
import secrets

from pydantic import SecretStr

BLOCK_BYTES = 64
"""Of SHA-256."""


def pads(key: SecretStr | None) -> tuple[bytes, bytes]:
    """The inner and the outer pad of HMAC-SHA256 (RFC 2104), of 64 bytes each; without a key, of a random one."""
    given = key.get_secret_value().encode() if key else secrets.token_bytes(32)
    block = (given if len(given) <= BLOCK_BYTES else hashlib.sha256(given).digest()).ljust(BLOCK_BYTES, b"\0")
    return bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block)

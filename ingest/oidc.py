"""Verifies the OIDC tokens of Google's services.

Written by hand: google.oauth2.id_token fetches the certificates for each token, without a bound, and its errors do not
distinguish a wrong identity (403) from an invalid token (401).
"""

import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog
from google.auth import jwt, transport
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request

CERTIFICATES_URL = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS = ("accounts.google.com", "https://accounts.google.com")
CLOCK_SKEW_SECONDS = 10
FETCH_TIMEOUT_SECONDS = 10
SECONDS_BETWEEN_FETCHES = 10.0
"""Minimum seconds between two fetches of the certificates, even if Google is down or tokens have unknown key ids."""
DEFAULT_LIFETIME_SECONDS = 3_600.0
"""Seconds to keep certificates whose response has no `max-age`."""
MAX_TOKENS = 1_000
"""Maximum verified tokens to cache; Pub/Sub sends the same token for up to an hour."""

log = structlog.get_logger()


class IdentityError(Exception):
    """A token is rejected.

    Attributes:
        status: HTTP status of the answer: 401 for an invalid token, 403 for a wrong identity, 503 if Google's
            certificates are not available.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class TokenVerifier:
    """Verifies that Google issued an OIDC token, for one audience and one service account. Thread-safe.

    Args:
        audience: the audience that tokens must have.
        email: the service account that tokens must identify.
        request: the HTTP client that fetches the certificates.
    """

    def __init__(self, audience: str, email: str, request: transport.Request | None = None) -> None:
        self._audience = audience
        self._email = email
        self._request = request or Request()
        self._lock = threading.Lock()
        self._certificates: Mapping[str, str] = {}
        self._expire_at = self._fetch_again_at = 0.0
        """Monotonic times, in seconds: when the certificates expire, and when they may be fetched again."""
        self._verified: dict[str, float] = {}
        """Maps a verified token to its expiry, in seconds since the epoch."""

    def is_verified(self, token: str) -> bool:
        """Return whether this token was verified before and has not expired; never blocks."""
        return self._verified.get(token, 0.0) > time.time()

    def verify(self, token: str) -> None:
        """Verify signature, times, audience, issuer and e-mail; may fetch certificates.

        Raises:
            IdentityError: if the token is rejected.
        """
        try:
            key_id = jwt.decode_header(token).get("kid")
            claims: Mapping[str, Any] = jwt.decode(
                token, self._certificates_for(key_id), clock_skew_in_seconds=CLOCK_SKEW_SECONDS
            )
        # google-auth does not catch errors of parsing, such as those of base64 and JSON
        except (GoogleAuthError, ValueError, TypeError, RecursionError) as error:
            raise IdentityError(401, "the token is malformed, forged or expired") from error
        if claims.get("aud") != self._audience:
            raise IdentityError(401, "the audience of the token is not PUSH_AUDIENCE")
        if claims.get("iss") not in ISSUERS:
            raise IdentityError(401, "the token is not issued by Google")
        if claims.get("email_verified") is not True:
            raise IdentityError(401, "the e-mail address of the token is not verified")
        if claims.get("email") != self._email:
            raise IdentityError(403, "the service account of the token is not PUSH_SERVICE_ACCOUNT")
        with self._lock:
            if len(self._verified) >= MAX_TOKENS:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = float(claims["exp"])

    def _certificates_for(self, key_id: object) -> Mapping[str, str]:
        """Return Google's certificates, fetched if the cached ones have expired or do not have this key."""
        with self._lock:
            now = time.monotonic()
            is_fresh = now < self._expire_at
            if (not is_fresh or key_id not in self._certificates) and now >= self._fetch_again_at:
                self._fetch_again_at = now + SECONDS_BETWEEN_FETCHES
                try:
                    self._certificates, lifetime = self._fetch()
                except (TransportError, ValueError, OSError) as error:
                    log.warning("cannot fetch Google's certificates", url=CERTIFICATES_URL, error=type(error).__name__)
                else:
                    is_fresh, self._expire_at = True, now + lifetime
            if not is_fresh:
                raise IdentityError(503, "Google's certificates are not available now")
            return self._certificates

    def _fetch(self) -> tuple[Mapping[str, str], float]:
        """Fetch the certificates by key id; returns also how many seconds they may be cached."""
        response: Any = self._request(CERTIFICATES_URL, timeout=FETCH_TIMEOUT_SECONDS)
        if response.status != 200:
            raise TransportError(f"HTTP status {response.status}")
        certificates = json.loads(response.data)
        if not isinstance(certificates, dict) or not certificates:
            raise ValueError("no certificates")
        headers = {name.lower(): value for name, value in response.headers.items()}
        max_age = re.search(r"max-age=(\d+)", headers.get("cache-control", ""))
        return certificates, float(max_age[1]) if max_age else DEFAULT_LIFETIME_SECONDS

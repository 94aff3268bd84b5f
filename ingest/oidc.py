"""Verifies the OIDC tokens that Google's services send.

Written by hand: google.oauth2.id_token fetches the certificates for every token, and one error stands for all reasons.
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
"""Minimum time between two fetches, also when Google is down or tokens have invented key ids."""
DEFAULT_LIFETIME_SECONDS = 3_600.0
"""For certificates that come without a `max-age`."""
MAX_TOKENS = 1_000
"""Maximum verified tokens to remember; Pub/Sub sends each for up to an hour."""

log = structlog.get_logger()


class IdentityError(Exception):
    """Why a token is rejected.

    Attributes:
        status: the HTTP status: 401, 403 for the wrong identity, or 503 without certificates to verify it by.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class TokenVerifier:
    """Checks that an OIDC token is from Google, for an audience and of one identity. Thread-safe.

    Args:
        audience: the audience that the token must have.
        email: the identity that the token must have.
        request: fetches the certificates.
    """

    def __init__(self, audience: str, email: str, request: transport.Request | None = None) -> None:
        self._audience = audience
        self._email = email
        self._request = request or Request()
        self._lock = threading.Lock()
        self._certificates: Mapping[str, str] = {}
        self._expire_at = self._fetch_again_at = 0.0
        """Monotonic times."""
        self._verified: dict[str, float] = {}
        """Token to its expiry, seconds since the epoch."""

    def is_verified(self, token: str) -> bool:
        """Whether this token was verified before and has not expired; never blocks."""
        return self._verified.get(token, 0.0) > time.time()

    def verify(self, token: str) -> None:
        """Verify signature, times, audience, issuer and e-mail; may fetch certificates.

        Raises:
            IdentityError: when the token is rejected.
        """
        try:
            key_id = jwt.decode_header(token).get("kid")
            claims: Mapping[str, Any] = jwt.decode(
                token, self._certificates_for(key_id), clock_skew_in_seconds=CLOCK_SKEW_SECONDS
            )
        # google-auth also raises the errors of parsing text that is not a token
        except (GoogleAuthError, ValueError, TypeError, RecursionError) as error:
            raise IdentityError(401, "the token is malformed, forged or expired") from error
        if claims.get("aud") != self._audience:
            raise IdentityError(401, "the token is for another audience than PUSH_AUDIENCE")
        if claims.get("iss") not in ISSUERS:
            raise IdentityError(401, "the token is not issued by Google")
        if claims.get("email_verified") is not True:
            raise IdentityError(401, "the token's e-mail is not verified")
        if claims.get("email") != self._email:
            raise IdentityError(403, "the token is not of PUSH_SERVICE_ACCOUNT")
        with self._lock:
            if len(self._verified) >= MAX_TOKENS:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = float(claims["exp"])

    def _certificates_for(self, key_id: object) -> Mapping[str, str]:
        """Google's certificates; fetched when they are out of date or lack this key."""
        with self._lock:
            now = time.monotonic()
            is_fresh = now < self._expire_at
            if (not is_fresh or key_id not in self._certificates) and now >= self._fetch_again_at:
                self._fetch_again_at = now + SECONDS_BETWEEN_FETCHES
                try:
                    self._certificates, lifetime = self._fetch()
                except (TransportError, ValueError, OSError) as error:
                    log.warning("certificates cannot be fetched", url=CERTIFICATES_URL, error=type(error).__name__)
                else:
                    is_fresh, self._expire_at = True, now + lifetime
            if not is_fresh:
                raise IdentityError(503, "Google's certificates cannot be fetched")
            return self._certificates

    def _fetch(self) -> tuple[Mapping[str, str], float]:
        """Key id to certificate, and how long they may be kept, seconds."""
        response: Any = self._request(CERTIFICATES_URL, timeout=FETCH_TIMEOUT_SECONDS)
        if response.status != 200:
            raise TransportError(f"status {response.status}")
        certificates = json.loads(response.data)
        if not isinstance(certificates, dict) or not certificates:
            raise ValueError("no certificates")
        headers = {name.lower(): value for name, value in response.headers.items()}
        max_age = re.search(r"max-age=(\d+)", headers.get("cache-control", ""))
        return certificates, float(max_age[1]) if max_age else DEFAULT_LIFETIME_SECONDS

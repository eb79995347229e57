"""How a server is asked again: which failures pass, how long to wait, and the API key from the environment."""

import asyncio
import os
import re
import time
from collections.abc import Mapping

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""

_KEY = re.compile(r"[!-~]+")
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds before a request is tried again: twice as many each time, up to the longest, and up to a second of jitter."""


class RetryError(RuntimeError):
    """An answer that did not come, of a request that is worth another try; `wait`: the seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def authorization(variable: str, url: str) -> dict[str, str]:
    """The header with the API key that an environment variable holds; white space around it, as a file's last newline, is left out.

    Raises ValueError, which doesn't name the key, where the variable is not set or holds what no header can have.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"the environment variable {variable}, which holds the API key of {url}, is not set")
    if not _KEY.fullmatch(key):  # the HTTP library's own error would show it
        raise ValueError(
            f"the environment variable {variable} holds no API key for {url}: it contains spaces or other characters that a key can't have"
        )
    return {"Authorization": f"Bearer {key}"}


def without_key(text: str, headers: Mapping[str, str]) -> str:
    """A server's words as they may be kept: it may have said the API key again."""
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "[API key]") if key else text


def again(error: Exception) -> bool | float:
    """Whether a request is worth another try, or after how many seconds; for stamina."""
    if not isinstance(error, RetryError):
        return False
    return True if error.wait is None else error.wait


def seconds_of(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, two minutes at most; None where it asks for none."""
    try:
        return min(max(float(header), 0.0), 120.0) if header else None
    except ValueError:  # a date: our own waiting will do
        return None


class _Limit:
    """Lets through so many requests a minute, evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self._every = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        if self._every:
            now = time.monotonic()
            self._next = max(self._next, now) + self._every
            await asyncio.sleep(self._next - self._every - now)

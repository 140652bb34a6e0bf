"""Addresses of any kind as messages may tell them."""

from __future__ import annotations

import re

_AUTHORITY = re.compile(r"(?<=://)[^/?#]*(?=@)")
_PASSWORD = re.compile(r"(?<=[?&]password=)[^&#\s]*")


def redact(url: str) -> str:
    """Return a URL without passwords: neither in its credentials nor in its query.

    >>> redact("postgresql://reader:se@cret@db/shop?password=se@cret&sslmode=require")
    'postgresql://reader:***@db/shop?password=***&sslmode=require'
    >>> redact("sqlite:////srv/mlflow.db")
    'sqlite:////srv/mlflow.db'
    """

    def user_only(found: re.Match[str]) -> str:
        user, colon, _ = found[0].partition(":")
        return f"{user}:***" if colon else user

    return _PASSWORD.sub("***", _AUTHORITY.sub(user_only, url))


def without_credentials(url: str) -> str:
    """Return a URL as a link: whoever follows it gives credentials of their own.

    >>> without_credentials("https://me:secret@mlflow.example.org/x")
    'https://mlflow.example.org/x'
    """
    return re.sub(r"(?<=://)[^/?#]*@", "", url, count=1)


def redact_in(text: str, url: str) -> str:
    """Return a message of somebody else's without the passwords of `url`, which it may quote in whole or in part.

    >>> redact_in("request to http://me:secret@mlflow/api failed", "http://me:secret@mlflow")
    'request to http://me:***@mlflow/api failed'
    """
    for credentials in _AUTHORITY.findall(url):
        user, colon, _ = credentials.partition(":")
        if colon:
            text = text.replace(credentials, f"{user}:***")
    return text.replace(url, redact(url))

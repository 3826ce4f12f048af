"""What the command line says of servers: addresses, and headers for them."""

from __future__ import annotations

import ipaddress
import urllib.parse


def server_url(text: str) -> str:
    """http(s)://host:port[/prefix] without a slash at the end; http:// may be left out.

    Raises:
        ValueError: anything else, and for a password in the address, which would be written down.
    """
    address = text if "://" in text else f"http://{text}"
    try:
        parts = urllib.parse.urlsplit(address)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:  # a port that is no number
        parts, sound = urllib.parse.urlsplit(""), False
    if not sound:
        raise ValueError(f"expected a server as http://host:port, got {text!r}; for example --server http://127.0.0.1:8188")
    if parts.username is not None:
        raise ValueError("expected a server without name and password, got some in --server; give them by --header")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def header(text: str) -> tuple[str, str]:
    """(name, value) of "Name: value".

    Raises:
        ValueError: it is none; the message does not repeat the value.
    """
    name, colon, value = text.partition(":")
    sound = colon and name.replace("-", "").isalnum() and text.isascii() and text.isprintable() and value.strip()
    if not sound:
        raise ValueError(
            'expected a header as "Name: value", got something else; for example --header "Authorization: Bearer ..."'
        )
    return name, value.strip()


def is_this_machine(url: str) -> bool:
    """Whether a server's address is a loopback one."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

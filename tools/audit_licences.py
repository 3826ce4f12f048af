"""Says under which licences everything is that is installed beside the Python that runs this; part of `make audit`.

Exit code 1 where a package has no licence that is known, or one that is not allowed here. The pack itself installs nothing: this
is about what its developers run."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections import Counter
from collections.abc import Iterable

ALLOWED = frozenset(
    (
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU",
        "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
    )
)  # fmt: skip
LIMITED = {"GPL-3.0-only": ("comfy-", "comfyui-"), "LicenseRef-NVIDIA-Proprietary": ("nvidia-", "cuda-")}
"""Licences that only packages with such names may have. Nothing of them is in the pack's archive: ComfyUI itself is GPL, and
torch's CUDA builds need NVIDIA's libraries, which everybody gets from NVIDIA's own packages."""
UNSTATED = {
    "comfy-aimdo": "GPL-3.0-only",  # its licence file
    "comfyui-frontend-package": "GPL-3.0-only",  # the front end's repository
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # an empty package that names NVIDIA's others
    "torchao": "BSD-3-Clause",  # its licence file
}
"""Packages whose metadata say nothing, and where their licence was read."""
SPELLINGS = {
    "3-clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "gpl-3.0": "GPL-3.0-only",
    "isc (iscl)": "ISC",
    "mozilla public 2.0 (mpl 2.0)": "MPL-2.0",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "psfl": "PSF-2.0",
    "python software foundation": "PSF-2.0",
}
"""What is written instead of SPDX's names, in small letters without "license" and "the"."""
_TOKEN = re.compile(r"[()]|[^\s()]+")


def main() -> int:
    found = {name_of(one): licence_of(one) for one in importlib.metadata.distributions()}
    bad = {name: licence for name, licence in found.items() if not is_allowed(name, licence)}
    for licence, count in Counter(licence or "unknown" for licence in found.values()).most_common():
        print(f"{count:5} {licence}")
    for name, licence in sorted(bad.items()):
        what = (
            f"expected a licence that tools/audit_licences.py allows for {name}, got {licence or 'none that its metadata name'}"
        )
        sys.stderr.write(f"error: {what}; read its licence, then add it there or do without the package\n")
    print(f"{len(found)} packages, {len(bad)} with an unknown or forbidden licence")
    return 1 if bad else 0


def name_of(distribution: importlib.metadata.Distribution) -> str:
    """The package's name as an index spells it."""
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()


def licence_of(distribution: importlib.metadata.Distribution) -> str | None:
    """An SPDX expression from the newest of the three fields that tells one, None where none does."""
    metadata = distribution.metadata
    said = [text for field in ("License-Expression", "License") for text in metadata.get_all(field) or []]
    classifiers = metadata.get_all("Classifier") or []
    said += [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: OSI Approved :: ")]
    return next((licence for text in said if (licence := _spdx(text))), UNSTATED.get(name_of(distribution)))


def is_allowed(name: str, licence: str | None) -> bool:
    """Whether a package of this name may have this licence: with OR one part has to be allowed, with AND every one."""
    if licence is None:
        return False
    tokens = _TOKEN.findall(licence)
    result = _either(name, tokens)
    return result and not tokens


def _spdx(text: str) -> str | None:
    """The expression in a field's text; None for none, and for the whole text of a licence."""
    if len(text) > 80 or "\n" in text:
        return None
    plain = re.sub(r"\b(the|license)\b", "", text, flags=re.IGNORECASE)
    plain = " ".join(plain.replace(",", " ").split())
    spelled = SPELLINGS.get(plain.lower())
    if spelled is not None:
        return spelled
    ids = [token for token in _TOKEN.findall(plain) if token not in ("(", ")", "AND", "OR", "WITH")]
    known = ALLOWED.union(LIMITED)
    return plain if ids and (any(one in known for one in ids) or "-" in plain) else None


def _either(name: str, tokens: list[str]) -> bool:
    parts = [_all(name, tokens)]
    while tokens[:1] == ["OR"]:
        tokens.pop(0)
        parts.append(_all(name, tokens))
    return any(parts)


def _all(name: str, tokens: list[str]) -> bool:
    parts = [_one(name, tokens)]
    while tokens[:1] == ["AND"]:
        tokens.pop(0)
        parts.append(_one(name, tokens))
    return all(parts)


def _one(name: str, tokens: list[str]) -> bool:
    first = tokens.pop(0) if tokens else ""
    if first == "(":
        result = _either(name, tokens)
        return tokens[:1] == [")"] and bool(tokens.pop(0)) and result
    if tokens[:1] == ["WITH"]:  # an exception only permits more
        del tokens[:2]
    return first in ALLOWED or _begins(name, LIMITED.get(first, ()))


def _begins(name: str, prefixes: Iterable[str]) -> bool:
    return any(name.startswith(prefix) for prefix in prefixes)


if __name__ == "__main__":
    sys.exit(main())

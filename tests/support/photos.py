"""A table of pictures as photographers have them, made by rule: mode x depth x profile x orientation x alpha x container.

Each is the test card, in whatever its file holds it as. What it has to look like is found by Pillow and littlecms alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from .icc import SPACES, colorants, grey_profile, matrix_profile

HEIGHT_PX, WIDTH_PX = 64, 96
BARS = ((230, 30, 30), (30, 200, 40), (30, 60, 220), (230, 200, 30))
PROFILES = ("p3", "adobe", "prophoto")
CAMERA = "Test camera"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF tiff:Orientation="%d" dc:title="card"/></x:xmpmeta>'
DPI = 240
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_270}  # fmt: skip
"""Orientation -> what a camera did to the upright picture; EXIF says how to undo it."""


@dataclass(frozen=True, kw_only=True)
class PhotoCase:
    """`sRGB_HWC`: uint8, what it looks like upright. `alpha_HW`: uint8 or None. `hidden_HW`: where no colour is to be seen."""

    name: str
    data: bytes
    container: str
    sRGB_HWC: np.ndarray
    alpha_HW: np.ndarray | None = None
    depth_bits: int = 8
    profile: bytes | None = None
    has_metadata: bool = False
    orientation: int = 0
    tolerance: float = 1.0

    @property
    def file_name(self) -> str:
        """With the suffix of its container."""
        suffix = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif", "AVIF": "avif"}
        return f"{self.name}.{suffix[self.container]}"


def worst_level(color_HWC: np.ndarray, case: PhotoCase) -> float:
    """The largest difference from what the case looks like, where it can be seen, of 255."""
    return float(differences(color_HWC, case).max())


def differences(color_HWC: np.ndarray, case: PhotoCase) -> np.ndarray:
    """All of them."""
    seen_HW = np.ones(case.sRGB_HWC.shape[:2], bool) if case.alpha_HW is None else case.alpha_HW > 0
    return np.abs(levels(color_HWC) - case.sRGB_HWC)[seen_HW]


def levels(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 as numbers of 0 to 255."""
    return values / (1 if values.dtype == np.uint8 else 257)


def card() -> np.ndarray:
    """uint8 (64, 96, 3): four bars above, a ramp of greys below."""
    made = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for index, colour in enumerate(BARS):
        made[:, index * WIDTH_PX // 4 : (index + 1) * WIDTH_PX // 4] = colour
    made[48:] = np.linspace(40, 215, WIDTH_PX).astype(np.uint8)[None, :, None]
    return made


def alpha() -> np.ndarray:
    """uint8 (64, 96): the left 12 columns and the upper 6 rows cannot be seen, then 8 columns half."""
    made = np.full((HEIGHT_PX, WIDTH_PX), 255, np.uint8)
    made[:, 12:20] = 128
    made[:, :12] = 0
    made[:6] = 0
    return made


def in_space(srgb_HWC: np.ndarray, name: str) -> np.ndarray:
    """uint8 sRGB -> floats 0..1 of one of icc.SPACES: the profile's own numbers, by its definition."""
    values = srgb_HWC / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ (np.linalg.inv(colorants(name)) @ colorants("srgb")).T, 0, 1)
    gamma = SPACES[name][2]
    if gamma is not None:
        return linear ** (1 / gamma)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def looks_like(image: Image.Image, profile: bytes | None) -> np.ndarray:
    """What a viewer with colour management shows, by littlecms: uint8 RGB."""
    if profile is None:
        return np.asarray(image.convert("RGB"))
    shown = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB",
        renderingIntent=ImageCms.Intent.PERCEPTUAL, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    assert shown is not None
    return np.asarray(shown)


def all_cases() -> list[PhotoCase]:
    """The table; names are unique."""
    made = [*_of_profiles(), *_turned(), *_with_alpha(), *_deep(), *_of_modes()]
    assert len({case.name for case in made}) == len(made)
    return made


def _saved(image: Image.Image, container: str, **options: object) -> bytes:
    file = io.BytesIO()
    best = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}}
    image.save(file, container, **best.get(container, {}), **options)
    return file.getvalue()


def _decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _of_profiles() -> Iterator[PhotoCase]:
    for container in ("PNG", "JPEG", "WEBP", "TIFF"):
        yield PhotoCase(
            name=f"plain-{container}".lower(), container=container, data=(data := _saved(Image.fromarray(card()), container)),
            sRGB_HWC=np.asarray(_decoded(data).convert("RGB")),
        )  # fmt: skip
        for space in (*PROFILES, "srgb"):
            profile = matrix_profile(space)
            pixels = np.rint(in_space(card(), space) * 255).astype(np.uint8)
            data = _saved(Image.fromarray(pixels), container, icc_profile=profile)
            yield PhotoCase(
                name=f"{space}-{container}".lower(), container=container, data=data, profile=profile,
                sRGB_HWC=looks_like(_decoded(data), profile),
            )  # fmt: skip


def metadata_options(container: str, orientation: int) -> dict[str, object]:
    """EXIF, XMP and DPI for Pillow's `save`."""
    exif = Image.Exif()
    exif[0x0110], exif[0x0112] = CAMERA, orientation
    exif.get_ifd(0x8769)[0x9003] = "2026:05:17 12:00:00"  # DateTimeOriginal
    options: dict[str, object] = {"exif": exif.tobytes()}
    if container == "PNG":
        from PIL.PngImagePlugin import PngInfo

        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
        options["pnginfo"] = texts
    elif container == "TIFF":
        ifd = TiffImagePlugin.ImageFileDirectory_v2()
        ifd[0x0110], ifd[0x0112] = CAMERA, orientation
        ifd[700] = XMP % orientation
        ifd.tagtype[700] = 1
        options = {"tiffinfo": ifd}
    else:
        options["xmp"] = XMP % orientation
    return options | ({} if container == "WEBP" else {"dpi": (DPI, DPI)})


def _turned() -> Iterator[PhotoCase]:
    for container, orientations in {"JPEG": range(1, 9), "PNG": (6,), "WEBP": (8,), "TIFF": (3,)}.items():
        for orientation in orientations:
            image = Image.fromarray(card())
            turned = image.transpose(TURNS[orientation]) if orientation in TURNS else image
            data = _saved(turned, container, **metadata_options(container, orientation))
            stored = _decoded(data).convert("RGB")
            back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
            upright = stored.transpose(TURNS[back]) if back in TURNS and container != "TIFF" else stored  # Pillow turns those
            yield PhotoCase(
                name=f"turned-{orientation}-{container}".lower(), container=container, data=data, has_metadata=True,
                orientation=orientation, sRGB_HWC=np.asarray(upright),
            )  # fmt: skip


def _with_alpha() -> Iterator[PhotoCase]:
    hidden_HWC = card()
    hidden_HWC[alpha() == 0] = (255, 0, 255)
    rgba = Image.fromarray(np.dstack([hidden_HWC, alpha()]))
    for container in ("PNG", "WEBP", "TIFF"):
        yield PhotoCase(
            name=f"rgba-{container}".lower(), container=container, data=_saved(rgba, container), sRGB_HWC=card(), alpha_HW=alpha()
        )
    profile = matrix_profile("p3")
    pixels = np.rint(in_space(card(), "p3") * 255).astype(np.uint8)
    data = _saved(Image.fromarray(np.dstack([pixels, alpha()])), "PNG", icc_profile=profile)
    yield PhotoCase(
        name="rgba-p3-png", container="PNG", data=data, profile=profile, sRGB_HWC=looks_like(Image.fromarray(pixels), profile),
        alpha_HW=alpha(),
    )  # fmt: skip
    grey = np.asarray(Image.fromarray(card()).convert("L"))
    for container in ("PNG", "TIFF"):
        yield PhotoCase(
            name=f"la-{container}".lower(), container=container,
            data=_saved(Image.fromarray(np.dstack([grey, alpha()])), container),
            sRGB_HWC=np.repeat(grey[..., None], 3, axis=-1), alpha_HW=alpha(),
        )  # fmt: skip
    sharp = np.where(alpha() == 0, 0, 255).astype(np.uint8)
    palette = Image.fromarray(card()).quantize(200)
    shown = np.asarray(palette.convert("RGB"))
    indices = np.asarray(palette).copy()
    colours = palette.getpalette() or []
    indices[sharp == 0] = free = len(colours) // 3
    one_hidden = Image.fromarray(indices)
    one_hidden.putpalette([*colours, 255, 0, 255])
    for container in ("PNG", "GIF"):
        data = _saved(one_hidden, container, transparency=free)
        yield PhotoCase(name=f"palette-{container}".lower(), container=container, data=data, sRGB_HWC=shown, alpha_HW=sharp)


def _deep() -> Iterator[PhotoCase]:
    for space in ("srgb", *PROFILES):
        profile = None if space == "srgb" else matrix_profile(space)
        pixels = np.rint(in_space(card(), space) * 65535).astype(np.uint16)
        for container, pack in (("PNG", png_16), ("TIFF", tiff_16)):
            yield PhotoCase(
                name=f"deep-{space}-{container}".lower(), container=container, data=pack(pixels, profile), profile=profile,
                sRGB_HWC=card(), depth_bits=16,
            )  # fmt: skip
    wide_alpha = alpha().astype(np.uint16) * 257
    rgba = np.dstack([card().astype(np.uint16) * 257, wide_alpha])
    rgba[alpha() == 0, :3] = (65535, 0, 65535)
    grey = np.asarray(Image.fromarray(card()).convert("L"))
    grey_16 = grey.astype(np.uint16)[..., None] * 257
    shown = np.repeat(grey[..., None], 3, axis=-1)
    for container, pack in (("PNG", png_16), ("TIFF", tiff_16)):
        yield PhotoCase(
            name=f"deep-rgba-{container}".lower(), container=container, data=pack(rgba, None), sRGB_HWC=card(), alpha_HW=alpha(),
            depth_bits=16,
        )  # fmt: skip
        yield PhotoCase(
            name=f"deep-grey-{container}".lower(), container=container, data=pack(grey_16, None), sRGB_HWC=shown, depth_bits=16
        )
    yield PhotoCase(
        name="deep-la-png", container="PNG", data=png_16(np.dstack([grey_16, wide_alpha]), None), sRGB_HWC=shown,
        alpha_HW=alpha(), depth_bits=16,
    )  # fmt: skip
    floats = Image.fromarray((grey / 255).astype(np.float32))
    yield PhotoCase(name="float-tiff", container="TIFF", data=_saved(floats, "TIFF"), sRGB_HWC=shown, depth_bits=16)


def _of_modes() -> Iterator[PhotoCase]:
    image = Image.fromarray(card())
    for mode, containers in {"L": ("PNG", "JPEG"), "1": ("PNG", "TIFF"), "P": ("PNG",), "CMYK": ("JPEG", "TIFF")}.items():
        for container in containers:
            data = _saved(image.quantize(200) if mode == "P" else image.convert(mode), container)
            yield PhotoCase(
                name=f"{mode}-{container}".lower(),
                container=container,
                data=data,
                sRGB_HWC=np.asarray(_decoded(data).convert("RGB")),
            )
    profile = grey_profile(1.8)
    grey = image.convert("L")
    yield PhotoCase(
        name="grey-gamma-1.8-png",
        container="PNG",
        data=_saved(grey, "PNG", icc_profile=profile),
        sRGB_HWC=looks_like(grey, profile),
    )
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    # 8 bits of L, a and b are coarser than those of sRGB.
    yield PhotoCase(name="lab-tiff", container="TIFF", data=_saved(lab, "TIFF"), sRGB_HWC=card(), tolerance=4.0)
    yield PhotoCase(name="bmp", container="BMP", data=_saved(image, "BMP"), sRGB_HWC=card())
    avif = _saved(image, "AVIF")
    yield PhotoCase(name="avif", container="AVIF", data=avif, sRGB_HWC=np.asarray(_decoded(avif).convert("RGB")))


def png_16(pixels_HWC: np.ndarray, profile: bytes | None) -> bytes:
    """uint16 of 1, 2, 3 or 4 channels as PNG, without filters."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels_HWC.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels_HWC)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    embedded = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)) if profile else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + embedded + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16(pixels_HWC: np.ndarray, profile: bytes | None) -> bytes:
    """uint16 of 1, 3 or 4 channels as TIFF, not compressed, big-endian as scanners write it."""
    height, width, channels = pixels_HWC.shape
    ifd = TiffImagePlugin.ImageFileDirectory_v2(b"MM\0*\0\0\0\0")
    data = pixels_HWC.astype(">u2").tobytes()
    ifd[256], ifd[257], ifd[258], ifd[259], ifd[262] = width, height, (16,) * channels, 1, 1 if channels == 1 else 2
    ifd[273], ifd[277], ifd[278], ifd[279] = (0,), channels, height, (len(data),)
    if channels == 4:
        ifd[338] = (2,)
    if profile:
        ifd.tagtype[34675] = 7
        ifd[34675] = profile
    file = io.BytesIO()
    ifd.save(file)
    return file.getvalue() + data

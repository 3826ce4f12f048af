"""What the trainer reads, sound and unsound: one example of each JSON file, settings, pictures, shards."""

from __future__ import annotations

import functools
import io
import tarfile

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from PIL import Image

from .json_cases import broken

RECORD = {
    "key": "a/b", "path": "shard.tar", "width_px": 4, "height_px": 4, "digest": "0" * 64, "split": "train", "caption": "A sign.",
    "offset": 512, "size_bytes": 70, "lq_path": "b.tar", "lq_scale": 2, "lq_size_bytes": 9, "lq_offset": 0, "lq_digest": "1",
}  # fmt: skip
PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "In"}},
    "2": {
        "class_type": "FaithDiffSampler",
        "inputs": {"seed": 3, "cfg": 5.0, "image": ["1", 0], "on": True, "text": "x", "no": None},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "p"}, "_meta": {"title": "Out"}},
}
ANNOTATIONS = {
    "pictures": {
        "a/b": {"size_px": [40, 30], "words": [{"text": "sign", "box_px": [1, 2.5, 10, 12]}]},
        "c": {"words": [{"text": "###", "box_px": [[1, 1], [9, 1], [9, 9]]}]},
    }
}
RESTORED = {
    "format": 1,
    "workflow": {"file": "w.json", "sha256": "ab", "settings": ["8.seed=3"], "input_node": "1", "output_node": "3"},
    "pictures": {"a": {"status": "done", "source_sha256": "0", "result_sha256": "1"}, "b": {"status": "failed", "message": "x"}},
}
HISTORY = {
    "status": {
        "status_str": "success", "completed": True,
        "messages": [["execution_start", {"timestamp": 1}], ["execution_success", {"timestamp": 2}]],
    },
    "outputs": {"3": {"images": [{"filename": "p_1.png", "subfolder": "", "type": "output"}]}},
}  # fmt: skip
REFUSAL = {
    "error": {"message": "invalid prompt", "details": "d"},
    "node_errors": {"2": {"errors": [{"message": "m", "details": "d"}]}},
}
PART = [{"model": "m", "prompt": "p", "max_tokens": 5}, {"key": "a", "digest": "0", "caption": "A cat."}]
SETTINGS = ("steps=5", "lr=1e-4", "8.seed=3", "seed=-1", "crop_px=64", "Out.filename_prefix=x", "2.cfg=nan", "fused_backward=yes")


@functools.cache
def pictures() -> list[bytes]:
    """One small picture of each format that is read, and of some that are not."""
    array = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "EPS", "PPM", "ICO"):
        written = io.BytesIO()
        Image.fromarray(array).save(written, kind)
        found.append(written.getvalue())
    for mode in ("I;16", "P", "RGBA", "1"):
        written = io.BytesIO()
        Image.new(mode, (9, 7)).save(written, "PNG")
        found.append(written.getvalue())
    return found


MEMBER_NAMES = (
    *(
        "a.png",
        "a.lq.png",
        "a.txt",
        "a.json",
        "../up.png",
        "/etc/up.png",
        "sub/../../up.png",
        "..\\up.png",
        "C:\\up.png",
        "C:up.png",
    ),
    *("./a.png", "x\0y.png", "x" * 300 + ".png", ".png", "a/.png", "a/b.PNG", "\ud800.png", "...png", "a.jpg"),
)


@st.composite
def shards(draw: DrawFn) -> bytes:
    """Tars with members of bad names, links, devices and sizes that lie, some with a piece changed."""
    written = io.BytesIO()
    kind = draw(st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    with tarfile.open(fileobj=written, mode="w", format=kind, errors="surrogateescape", encoding="utf-8") as archive:
        for _ in range(draw(st.integers(0, 3))):
            member = tarfile.TarInfo(draw(st.sampled_from(MEMBER_NAMES)).replace("\ud800", "\udc80"))
            data = draw(st.sampled_from((pictures()[0], b"A sign.", b'{"caption": 5}', b"")))
            member.size = len(data)
            if draw(st.integers(0, 3)) == 0:
                member.type = draw(
                    st.sampled_from((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S", b"L", b"x"))
                )
                member.linkname = draw(st.sampled_from(("/etc/passwd", "../../up", "a.png")))
                member.size = draw(st.sampled_from((0, 0, len(data), 8**11 - 1)))
            if draw(st.integers(0, 5)) == 0 and kind == tarfile.PAX_FORMAT:
                name = draw(st.sampled_from(("size", "path", "GNU.sparse.size", "GNU.sparse.map", "hdrcharset", "mtime")))
                member.pax_headers = {name: draw(st.sampled_from(("-1", "9" * 30, "../up.png", "x", "1,2,3", "nan", "BINARY")))}
            try:
                archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
            except (OSError, ValueError, UnicodeError):
                continue
    data = written.getvalue()
    return draw(broken(data)) if draw(st.booleans()) else data


@st.composite
def numbers_changed(draw: DrawFn, seeds: SearchStrategy[bytes]) -> bytes:
    """A file with up to four bytes set to others: sizes and offsets in binary headers."""
    data = bytearray(draw(seeds))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, min(len(data) - 1, 400)))] = draw(st.sampled_from((0, 1, 2, 127, 128, 254, 255)))
    return bytes(data)

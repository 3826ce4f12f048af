"""Torch pickles as strangers write them: that want to run code, to allocate, to count for ever, or that are no archive at all.

Everything is made here, at test time; nothing of it is ever loaded by Python's own pickle."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .json_cases import broken
from .pickle_parts import Calls, archive, call, legacy, number, saved, storage, table, tensor, text, with_decoy

CANARY = Path(tempfile.gettempdir()) / "faithdiff-canary"
"""What hostile pickles would make in a test. Always the same path, since the cases drawn hang on its length."""


def hostile_pickles(canary: Path) -> dict[str, bytes]:
    """Files by what is wrong with them. Those that would run code would make or change `canary`."""
    command = f"echo ran > {canary}"
    runs = {
        "os.system": Calls(os.system, command),
        "eval": Calls(eval, f"open({str(canary)!r}, 'w')"),
        "exec": Calls(exec, f"open({str(canary)!r}, 'w').write('ran')"),
        "open": Calls(open, str(canary), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "torch.load": Calls(torch.load, str(canary)),
        "nested": {"deep": [({"deeper": (Calls(os.system, command),)},)]},
    }
    files = {}
    for name, value in runs.items():
        files[name] = saved({"conv_in.weight": torch.zeros(4), "x": value})
        files[f"{name}, legacy"] = saved({"x": value}, legacy=True)
        for protocol in (0, 1, 2, 4, 5):
            files[f"{name}, bare pickle of protocol {protocol}"] = pickle.dumps({"x": value}, protocol=protocol)
        files[f"{name}, archive of protocol 5"] = archive(pickle.dumps({"x": value}, protocol=5))
    return files | _greedy() | _endless() | _broken_archives(canary) | _odd_tensors()


def _greedy() -> dict[str, bytes]:
    """Small files that ask for much memory."""
    much = number(20 * 10**9)
    twin = archive(table(a=tensor(storage()), b=tensor(storage(), size=(10**5, 10**6), stride=(0, 0))), {"data/0": bytes(16)})
    many = {f"n{i}": tensor(storage(numel=2**18), size=(2**18,)) for i in range(300)}
    return {
        "bytearray of 20 GB": archive(table(a=call("builtins", "bytearray", much + b"\x85"))),
        "bytearray of 20 GB, legacy": legacy(table(a=call("builtins", "bytearray", much + b"\x85"))),
        "view of 100 billion elements": twin,
        "300 views of one MiB": archive(table(**many), {"data/0": bytes(2**20)}),
        "storage larger than its record": archive(table(a=tensor(storage(numel=10**9), size=(10**9,))), {"data/0": bytes(16)}),
        "bytearray of 20 GB behind the weights, legacy": legacy(
            table(), keys=b"\x80\x02" + call("builtins", "bytearray", much + b"\x85") + b"."
        ),
        "bytearray of 20 GB under an archive's directory": with_decoy(
            legacy(table(a=call("builtins", "bytearray", much + b"\x85")))
        ),
        # torch makes the second tensor's storage as large as its steps ask for.
        "storage of two sizes, legacy": legacy(
            table(a=tensor(storage()), b=tensor(storage("DoubleStorage", numel=10**9), size=(2,), stride=(10**9 - 1,)))
        ),
        "storage of two sizes": archive(
            table(a=tensor(storage()), b=tensor(storage("DoubleStorage", numel=10**9), size=(2,), stride=(10**9 - 1,))),
            {"data/0": bytes(16)},
        ),
        "storage of 8 TB, legacy": legacy(table(a=tensor(storage(numel=2 * 10**12), size=(2 * 10**12,)))),
        "meta tensor": archive(table(a=_meta_tensor())),
        "memo index of two billion": archive(b"\x80\x02}r\xff\xff\xff\x7f."),
        "string of 4 GB": archive(b"\x80\x02X\xff\xff\xff\xffabc."),
        "bytearray8": archive(b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"abc."),
        "bytes8": archive(b"\x80\x05\x8e" + struct.pack("<Q", 2**34) + b"abc."),
        "frame of 16 EB": archive(b"\x80\x05\x95" + b"\xff" * 8 + b"}."),
        "zip bomb in a weight": archive(
            table(a=tensor(storage(numel=2**23), size=(2**23,))), {"data/0": bytes(2**25)}, compress=zipfile.ZIP_DEFLATED
        ),
        "zip bomb in the pickle": archive(table(a=text("a" * 2**25)), compress=zipfile.ZIP_DEFLATED),
    }


def _meta_tensor() -> bytes:
    arguments = b"(ctorch\nfloat32\n(" + number(10**6) + number(10**6) + b"t(" + number(10**6) + number(1) + b"t\x89tR"
    return b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n" + arguments


def _endless() -> dict[str, bytes]:
    """Small files that take for ever: tuples of themselves, sixty deep, whose hash or text has 2**60 steps."""
    laughs = b"K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    return {
        "hash of a laugh": archive(b"\x80\x02}" + laughs + b"K\x01s."),
        "set of a laugh": archive(b"\x80\x02" + call("builtins", "set", laughs + b"\x85\x85") + b"."),
        "ordered table of a laugh": archive(
            b"\x80\x02" + call("collections", "OrderedDict", b"]" + laughs + b"K\x01\x86a\x85") + b"."
        ),
        "key of a storage is a laugh": archive(
            b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n" + laughs + text("cpu") + b"K\x01tQ."
        ),
        "call of a laugh": archive(b"\x80\x02" + laughs + b")R."),
        "value is a laugh": archive(table(a=laughs)),
        "nested 100000 deep": archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    }


def _broken_archives(canary: Path) -> dict[str, bytes]:
    whole = saved({"a": torch.zeros(4)})
    up = os.path.relpath(canary, "/")
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        for name in ("storages", "tensors", "pickle", f"../../../../../../{up}"):
            member = tarfile.TarInfo(name)
            member.size = 10
            file.addfile(member, io.BytesIO(bytes(10)))
    double = io.BytesIO(archive(table(a=tensor(storage())), {"data/0": bytes(16)}))
    with zipfile.ZipFile(double, "a") as file:
        file.writestr("a/DATA.PKL", pickle.dumps(Calls(os.system, f"echo ran > {canary}"), protocol=2))
    return {
        "names that lead out": archive(
            table(a=tensor(storage(key=f"../../{up}"))), {f"data/../../{up}": bytes(16)}, name="../.."
        ),
        "absolute names": archive(table(a=tensor(storage())), {"data/0": bytes(16)}, name=f"/{up}"),
        "torch's tar format": tar.getvalue(),
        "two pickles": double.getvalue(),
        "zip of other things": archive(b"", {"x": b"y"}),
        "zip behind a pickle": pickle.dumps(Calls(os.system, f"echo ran > {canary}"), protocol=2) + whole,
        "truncated": whole[: len(whole) // 2],
        "first bytes only": whole[:3],
        "truncated, legacy": saved({"a": torch.zeros(4)}, legacy=True)[:-8],
        "no STOP": archive(b"\x80\x02}"),
        "stack underflow": archive(b"\x80\x02R."),
    }


def _odd_tensors() -> dict[str, bytes]:
    """Tensors that torch makes of weights_only files, and that no network takes."""
    sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (10**6,))
    return {
        "sparse": saved({"a": sparse}),
        "quantised": saved({"a": torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8)}),
        "attributes": saved({"a": _with_attribute()}),
        "call of a tensor": archive(table(a=tensor(storage()) + b")R"), {"data/0": bytes(16)}),
        "state of a tensor": archive(table(a=tensor(storage()) + b"}b"), {"data/0": bytes(16)}),
        "class made of content": archive(table(a=b"ccollections\nOrderedDict\nK\x01\x85\x81")),
        "size of a text": archive(table(a=call("torch", "Size", text("a" * 4) + b"\x85"))),
        "size of 100000 sides": archive(table(a=call("torch", "Size", b"(" + b"K\x01" * 100_000 + b"t\x85"))),
        "shape that is a text": archive(b"\x80\x02}" + text("a") + _tensor_of_texts() + b"s.", {"data/0": bytes(16)}),
        "negative offset": archive(table(a=tensor(storage(), offset=-1)), {"data/0": bytes(16)}),
        "negative size": archive(table(a=tensor(storage(), size=(-4,))), {"data/0": bytes(16)}),
        "beyond its storage": archive(table(a=tensor(storage(), size=(4,), stride=(10**9,))), {"data/0": bytes(16)}),
        "missing record": archive(table(a=tensor(storage(key="7")))),
        "other names": saved({1: torch.zeros(4)}),
        "no tensors": saved({"a": 1}),
        "a list": saved([torch.zeros(4)]),
    }


def _tensor_of_texts() -> bytes:
    arguments = storage() + number(0) + text("4") + text("1") + b"\x89N"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def _with_attribute() -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.surprise = 5  # pyright: ignore[reportAttributeAccessIssue] - pickled by another function of torch
    return parameter


def pickle_files(canary: Path) -> SearchStrategy[bytes]:
    """Hostile and sound ones with a piece changed, and archives of opcodes in any order."""
    sound = {"a": torch.arange(4.0), "b": torch.zeros(2, 2, dtype=torch.float16), "c": torch.nn.Parameter(torch.zeros(1))}
    seeds = [each for each in hostile_pickles(canary).values() if len(each) < 10_000]
    seeds += [saved(sound), saved(sound, legacy=True), saved({"state_dict": sound, "step": 3})]
    pieces = (
        *(
            b"}",
            b"]",
            b")",
            b"(",
            b"t",
            b"\x85",
            b"\x86",
            b"\x87",
            b"R",
            b"b",
            b"s",
            b"u",
            b"a",
            b"e",
            b"Q",
            b"0",
            b"N",
            b"\x89",
            b"2",
        ),
        *(b"\x81", b"h\x00", b"q\x00", b"K\x05", text("a"), text("storage"), storage(), tensor(storage()), storage(numel=-1)),
        *(storage("HalfStorage", "0", 8), storage(key="1"), storage(numel=10**11), b"ctorch\nSize\n", b"ctorch\nfloat8_e4m3fn\n"),
        *(
            b"ccollections\nOrderedDict\n",
            b"cbuiltins\nbytearray\n",
            b"ccollections\nCounter\n",
            b"cos\nsystem\n",
            b"ctorch\ndevice\n",
        ),
        *(
            b"ctorch._utils\n_rebuild_parameter\n",
            b"ctorch._tensor\n_rebuild_from_type_v2\n",
            b"\x8a\x09" + b"\xff" * 8 + b"\x7f",
        ),
    )
    programs = st.lists(st.sampled_from(pieces), max_size=24).map(lambda found: b"\x80\x02" + b"".join(found) + b".")
    archives = programs.map(lambda program: archive(program, {"data/0": bytes(16)}))
    return st.one_of(st.sampled_from(seeds).flatmap(broken), archives, programs.map(legacy), programs)

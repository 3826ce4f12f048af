"""The photo that comes with the pack: in the list, loaded where it lies, and given to the page."""

from __future__ import annotations

import asyncio
import shutil
import sys
from types import SimpleNamespace

import folder_paths
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from comfyui_faithdiff.nodes.load_photo import FaithDiffLoadPhoto
from comfyui_faithdiff.nodes.photos.files import OWN_PHOTOS, fingerprint, photo_names, photo_path
from comfyui_faithdiff.nodes.photos.served import serve_own_photos
from PIL import Image

NAME = "faithdiff_demo.png"


@pytest.fixture
def input_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    Image.new("RGB", (8, 6)).save(tmp_path / "z.png")
    return tmp_path


def test_it_is_listed_last_and_read_where_it_lies(input_folder):
    assert photo_names() == ["z.png", NAME]
    assert photo_path(NAME) == OWN_PHOTOS[NAME]
    assert fingerprint(NAME)[1:] != (0, 0)
    assert FaithDiffLoadPhoto.validate_inputs(NAME) is True
    image, _, photo = FaithDiffLoadPhoto.execute(NAME).args
    with Image.open(OWN_PHOTOS[NAME]) as picture:
        assert (image.shape[2], image.shape[1]) == picture.size
    assert photo.source.name == "faithdiff_demo"
    assert [path.name for path in input_folder.iterdir()] == ["z.png"]


def test_a_file_of_the_users_by_that_name_goes_before(input_folder):
    shutil.copy(input_folder / "z.png", input_folder / NAME)
    assert photo_names() == [NAME, "z.png"]
    assert photo_path(NAME) == input_folder / NAME
    assert FaithDiffLoadPhoto.execute(NAME).args[0].shape == (1, 6, 8, 3)


def test_the_page_gets_it_and_nothing_else(input_folder, monkeypatch):
    async def answers():
        async def nothing(request):
            return web.Response(status=404)

        app = web.Application()
        app.router.add_get("/view", nothing)
        server = SimpleNamespace(web=web, PromptServer=SimpleNamespace(instance=SimpleNamespace(app=app)))
        monkeypatch.setitem(sys.modules, "server", server)
        serve_own_photos()
        async with TestClient(TestServer(app)) as client:
            found = []
            for query in (
                f"filename={NAME}&type=input&subfolder=&rand=0.5",
                f"filename={NAME}&type=output",
                f"filename={NAME}&type=input&subfolder=a",
                "filename=photo_lq.png&type=input",
                "filename=../demo/photo_lq.png&type=input",
            ):
                answer = await client.get(f"/view?{query}")
                found.append((answer.status, await answer.read()))
            shutil.copy(input_folder / "z.png", input_folder / NAME)
            found.append(((await client.get(f"/view?filename={NAME}&type=input")).status, b""))
            return found

    first, *others = asyncio.run(answers())
    assert first == (200, OWN_PHOTOS[NAME].read_bytes())
    assert [status for status, _ in others] == [404] * 5, "what is not ours is the host's to answer"


def test_without_a_server_nothing_is_served(monkeypatch):
    monkeypatch.delitem(sys.modules, "server", raising=False)
    serve_own_photos()

"""The documents that a visitor reads: links lead somewhere, both languages say the same, the README is short, every node and
workflow is named, and what GitHub reads can be parsed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml
from support.schemas import schema_fields

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh.md")
NODES = ("docs/nodes.md", "docs/nodes.zh.md")
IN_CHINESE = (READMES, NODES, ("docs/troubleshooting.md", "docs/troubleshooting.zh.md"))
MAX_WORDS = 1500
"""Of the README, as `wc -w` counts: who reads it decides in half a minute. The rest stands in docs/."""
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "demo/*.md", "web/docs/**/*.md")
    for path in ROOT.glob(pattern)
)
GITHUB_FILES = sorted((ROOT / ".github").rglob("*.yml"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```", re.DOTALL)
OURS = "benchmarks|demo|docs|faithdiff_core|locales|nodes|subgraphs|tests|tools|training|web|workflows"
NAMED = re.compile(rf"(?<![\w./-])(?:{OURS})/[\w./-]*[\w/]")
MADE_UP = re.compile(r"NAME|KEY")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = [link.split("#")[0] for link in LINK.findall(CODE.sub("", read(name)))]
    local = [link for link in links if link and not re.match(r"\w+:", link)]
    assert [link for link in local if not (ROOT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_are_there(name):
    """Folders, too. `nodes/<name>.py` names the folder; a name in capitals stands for any."""
    named = [path for path in NAMED.findall(read(name)) if not MADE_UP.search(path)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_architecture_is_short_and_wrapped():
    lines = read("ARCHITECTURE.md").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []
    assert [line for line in lines if "*." in line] == []  # a glob is a room without a name


def test_there_are_documents():
    assert {*READMES, "CONTRIBUTING.md", "docs/nano.md"} <= set(DOCUMENTS)


def test_the_readme_is_short():
    assert len(read("README.md").split()) <= MAX_WORDS


@pytest.mark.parametrize("pair", IN_CHINESE, ids=lambda pair: pair[0])
def test_the_chinese_page_has_what_the_english_one_has(pair):
    english, chinese = (read(name) for name in pair)
    for what in (r"^(#+) ", r"^(\|)", r"^(\* )", r"^(\*\*)"):  # headings by level; rows of tables; points; questions
        counted = [re.findall(what, CODE.sub("", text), re.MULTILINE) for text in (english, chinese)]
        assert counted[0] == counted[1], what
    assert english.count("\n## ") >= 2
    assert CODE.findall(english) == CODE.findall(chinese)
    links = [set(LINK.findall(text)) - {Path(name).name for name in pair} for text in (english, chinese)]
    assert links[0] == links[1]
    numbers = [sorted(re.findall(r"\d+(?:\.\d+)?(?= (?:GB|MB|px|像素))", text)) for text in (english, chinese)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("page", NODES)
def test_every_node_and_every_workflow_is_named(page):
    text = read(page)
    names = [ast.literal_eval(fields["display_name"]) for fields in schema_fields()]
    assert len(names) >= 7 and [name for name in names if name not in text] == []
    assert [path.stem for path in (ROOT / "workflows").glob("*.json") if f"(../workflows/{path.name})" not in text] == []


@pytest.mark.parametrize("path", GITHUB_FILES, ids=lambda path: path.name)
def test_what_github_reads_can_be_parsed(path):
    parsed = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        assert {"name", "permissions", "jobs"} <= set(parsed) and parsed["permissions"] == {"contents": "read"}
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= set(parsed)
        assert all(part["type"] == "markdown" or part["id"] for part in parsed["body"])


def test_actions_are_pinned_and_one_workflow_has_the_one_secret():
    secrets, actions = {}, []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        actions += re.findall(r"uses: (.+)", text)
        secrets[path.name] = re.findall(r"\$\{\{ secrets\.(\w+)", text)
    assert {name: found for name, found in secrets.items() if found} == {"publish.yml": ["REGISTRY_ACCESS_TOKEN"]}
    others = [action for action in actions if not action.startswith("./")]
    assert others and [action for action in others if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # \S.*", action)] == []

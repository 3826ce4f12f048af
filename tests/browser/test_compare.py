"""FaithDiff Before / After as its user sees it, in both ways in which the front end draws nodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.compare_page import AFTER_BLUE, BEFORE_BLUE, HEIGHT_PX, NODE_AT, NODE_SIZE, PROMPT, SECOND_BLUE, VIEW, Shown
from support.tiers import all_long_but

pytestmark = pytest.mark.host
NODE = "app.graph._nodes.find((node) => node.type === 'FaithDiffCompare')"
OPEN = f"""(async () => {{
  await app.extensionManager.command.execute('Comfy.NewBlankWorkflow')
  app.loadApiJson({json.dumps(PROMPT)}, 'compare')
  await faithdiff.pause(1000)
  app.graph._nodes.forEach((node, i) => {{ node.pos = [800 + 400 * (i % 2), 120 + 200 * i] }})
  {NODE}.pos = {list(NODE_AT)}
  {NODE}.setSize({list(NODE_SIZE)})
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [0, 0]
  app.canvas.setDirty(true, true)
}})()"""
RUN = """new Promise((resolve) => {
  const end = (event) => resolve(event.type + (event.detail.exception_message ?? ''))
  for (const type of ['execution_success', 'execution_error']) app.api.addEventListener(type, end, { once: true })
  app.queuePrompt(0)
})"""
SAVED = f"JSON.stringify({NODE}.serialize().widgets_values)"
ZOOM = f"document.querySelector('{VIEW}').lastElementChild.lastElementChild.textContent"
MENU = ".litecontextmenu, .p-contextmenu, [data-testid='node-context-menu']"
LEVELS = 2.0
"""Of 255: how far a pixel may be from its place's value; the browser and the enlarging of the before round."""
EDGE_PX = 8
"""Where enlarging has no neighbours to go by."""


@pytest.fixture(params=all_long_but(["classic", "nodes_2"], "classic"))
def page(frontend, request):
    """The graph, run once; the whole picture is shown."""
    frontend.ask("setNodes2", on=request.param == "nodes_2")
    frontend.mode = request.param
    frontend.ask("evaluate", expression=OPEN)
    assert frontend.ask("evaluate", expression=RUN) == "execution_success"
    frontend.ask("boxOf", selector=f"{VIEW}.is-shown")
    yield frontend
    frontend.ask("setNodes2", on=False)


def test_slider_zoom_and_batch(page):
    def shown(name):
        return Shown(page, f"compare_{page.mode}_{name}")

    saved = page.ask("evaluate", expression=SAVED)
    assert json.loads(saved) == ["right"]

    view = shown("fit")
    assert _blues(view) == (BEFORE_BLUE, AFTER_BLUE)
    px = _px_of_picture(view)
    assert px == pytest.approx(1.98, abs=0.05)

    page.ask("mouse", steps=[["move", *view.point(0.5, 0.6)], ["down"], ["move", *view.point(0.3, 0.6)], ["up"]])
    view = shown("dragged")
    assert _blue(view, 0.2) == BEFORE_BLUE and _blue(view, 0.4) == AFTER_BLUE
    page.ask("keys", names=["Home"])
    assert _blue(shown("home"), 0.1) == AFTER_BLUE
    page.ask("keys", names=["End", *["Shift+ArrowLeft"] * 5])
    assert _blues(shown("keys")) == (BEFORE_BLUE, AFTER_BLUE)

    page.ask("mouse", steps=[["move", *view.point(0.4, 0.4)], *[["wheel", 0, -200]] * 5])
    view = shown("zoomed")
    assert _blues(view) == (BEFORE_BLUE, AFTER_BLUE)
    assert _px_of_picture(view) > 2 * px
    assert page.ask("evaluate", expression="app.canvas.ds.scale") == 1
    page.ask("mouse", steps=[["move", *view.point(0.3, 0.3)], ["down"], ["move", *view.point(0.2, 0.3)], ["up"]])
    moved = shown("moved")
    assert _blues(moved) == (BEFORE_BLUE, AFTER_BLUE)
    assert moved.row(0.5, 0.3, 0.31)[0, 0] - view.row(0.5, 0.3, 0.31)[0, 0] == pytest.approx(
        0.1 * view.box["width"] / _px_of_picture(view), abs=LEVELS
    )

    page.ask("mouse", steps=[["wheel", 0, 5000], ["move", *view.point(0.5, 0.5)]])
    view = shown("single")
    assert page.ask("evaluate", expression=ZOOM) == "100 %"
    assert _px_of_picture(view) == pytest.approx(1.0, abs=0.02)
    page.ask("mouse", steps=[["dblclick", *view.point(0.4, 0.4)]])
    assert _px_of_picture(shown("whole")) == pytest.approx(px, abs=0.02)

    page.ask("keys", names=["PageDown"])
    page.ask("evaluate", expression="faithdiff.pause(500)")
    assert _blues(shown("second")) == (BEFORE_BLUE, SECOND_BLUE)
    assert page.ask("evaluate", expression=SAVED) == saved

    page.ask("mouse", steps=[["click", *view.point(0.3, 0.3), {"button": "right"}]])
    page.photograph(f"compare_{page.mode}_menu")
    page.ask("boxOf", selector=MENU)
    page.ask("evaluate", expression="LiteGraph.closeAllContextMenus()")
    page.ask("keys", names=["Escape"])


@pytest.mark.long
def test_a_view_outlives_what_happens_to_its_node(page):
    """Another zoom of the canvas, another size, another tab and back, undo, pictures that are gone."""

    def shown(name):
        return Shown(page, f"compare_{page.mode}_{name}")

    page.ask("evaluate", expression=_then_wait("app.canvas.ds.scale = 0.5"))
    view = shown("half")
    assert _blues(view) == (BEFORE_BLUE, AFTER_BLUE)
    page.ask("mouse", steps=[["dblclick", *view.point(0.4, 0.4)]])
    assert page.ask("evaluate", expression=ZOOM) == "100 %"
    assert _px_of_picture(shown("half_single")) == pytest.approx(1.0, abs=0.02)
    page.ask("mouse", steps=[["dblclick", *view.point(0.4, 0.4)]])
    page.ask("mouse", steps=[["move", *view.point(0.5, 0.6)], ["down"], ["move", *view.point(0.4, 0.6)]])
    view = shown("half_dragged")
    assert _blue(view, 0.37) == BEFORE_BLUE and _blue(view, 0.43) == AFTER_BLUE
    page.ask("mouse", steps=[["move", *view.point(0.5, 0.6)], ["up"]])

    page.ask("evaluate", expression=_then_wait(f"app.canvas.ds.scale = 1; {NODE}.setSize([700, 400])"))
    view = shown("wide")
    assert view.box["width"] > 600 and view.box["height"] < 350
    assert _px_of_picture(view) == pytest.approx(view.box["height"] / HEIGHT_PX, abs=0.02)

    page.ask("evaluate", expression=_then_wait("await app.extensionManager.command.execute('Comfy.NewBlankWorkflow')"))
    assert page.ask("evaluate", expression=f"{NODE} === undefined")
    to_tab = "[...document.querySelectorAll('.workflow-label')].findLast((tab) => tab.textContent.startsWith('compare')).click()"
    page.ask("evaluate", expression=_then_wait(to_tab))
    page.ask("boxOf", selector=f"{VIEW}.is-shown")
    assert _blues(shown("tab_back")) == (BEFORE_BLUE, AFTER_BLUE)

    undo = f"""{NODE}.title = 'Changed'
      app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
      await app.extensionManager.command.execute('Comfy.Undo')"""
    page.ask("evaluate", expression=_then_wait(undo))
    assert page.ask("evaluate", expression=f"{NODE}.title") != "Changed"
    page.ask("boxOf", selector=f"{VIEW}.is-shown")

    gone = "{ filename: 'gone.png', subfolder: '', type: 'temp' }"
    page.ask("evaluate", expression=_then_wait(f"{NODE}.onExecuted({{ before: [{gone}], after: [{gone}] }})"))
    assert page.ask("evaluate", expression=f"document.querySelectorAll('{VIEW}, {VIEW}.is-shown').length") == 1
    assert page.ask("evaluate", expression=f"document.querySelectorAll('{VIEW}.is-shown').length") == 0


@pytest.mark.long
def test_in_a_subgraph_and_after_the_page_is_loaded_anew(page):
    page.ask("evaluate", expression=_then_wait(f"app.canvas.graph.convertToSubgraph(new Set([{NODE}]))"))
    assert page.ask("evaluate", expression=RUN) == "execution_success"
    inside = """const outer = app.graph._nodes.find((node) => node.subgraph)
      app.canvas.openSubgraph(outer.subgraph, outer)
      await faithdiff.pause(500)
      faithdiff.fit()"""
    page.ask("evaluate", expression=_then_wait(inside))
    assert _blues(Shown(page, f"compare_{page.mode}_subgraph")) == (BEFORE_BLUE, AFTER_BLUE)
    saved = "app.rootGraph.serialize().definitions.subgraphs[0].nodes.map((node) => node.widgets_values)"
    assert page.ask("evaluate", expression=saved) == [["right"]]

    page.ask("evaluate", expression=OPEN)
    page.ask("setLanguage", code="en")  # loads the page anew
    page.ask("boxOf", selector=VIEW)
    assert page.ask("evaluate", expression=f"document.querySelectorAll('{VIEW}.is-shown').length") == 0
    assert page.ask("evaluate", expression=RUN) == "execution_success"  # all of it is in the server's cache
    page.ask("boxOf", selector=f"{VIEW}.is-shown")
    page.ask("evaluate", expression=_then_wait("app.graph.add(LiteGraph.createNode('FaithDiffCompare'))"))
    assert page.ask("evaluate", expression=f"document.querySelectorAll('{VIEW}').length") == 2  # each shows its own run
    assert page.ask("evaluate", expression=f"document.querySelectorAll('{VIEW}.is-shown').length") == 1


def _then_wait(statements):
    """An expression for the page: statements, and time to draw what they changed."""
    return f"(async () => {{ {statements}; app.canvas.setDirty(true, true); await faithdiff.pause(1000) }})()"


def _blue(view, at_frac):
    """The blue at a place in the middle row."""
    return round(float(np.median(view.row(0.5, at_frac - 0.02, at_frac + 0.02)[:, 2])))


def _blues(view):
    return _blue(view, 0.3), _blue(view, 0.7)


def _px_of_picture(view):
    """Screen px a picture px; red says where a pixel is from. Raises AssertionError where the pictures do not lie on one line."""
    row = view.row(0.5, 0, 1)
    x = np.arange(len(row))
    of_picture = (abs(row[:, 1] - 100) < 30) & (abs(x - len(row) / 2) > 20)  # not the ground beside it, nor the slider
    inside = np.flatnonzero(of_picture)[EDGE_PX:-EDGE_PX]
    per_px, first = np.polyfit(x[inside], row[inside, 0], 1)
    assert np.abs(row[inside, 0] - (first + per_px * x[inside])).max() <= LEVELS
    return 1 / per_px

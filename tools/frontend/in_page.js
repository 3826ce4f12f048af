// What the tools and the tests do inside the front end's page. Put there as `window.faithdiff` before the page's own scripts run.

globalThis.faithdiff = (() => {
  const GROUP_PADDING_PX = 20
  const TITLE_BAR_PX = 30 // above a node's own position
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
  const values = (collection) => [...(collection?.values?.() ?? Object.values(collection ?? {}))]

  // A graph from an API-format prompt, every node at its place in the layout. Returns the nodes by their names in both.
  async function build(api, layout) {
    const { app, LiteGraph } = window
    app.loadApiJson(api, 'faithdiff')
    await pause(1000) // widgets get their final sizes a moment later
    const graph = app.graph
    for (const group of [...graph._groups]) graph.remove(group)
    for (const widget of graph._nodes.flatMap((node) => node.widgets ?? [])) {
      if (widget.name === 'control_after_generate') widget.value = 'fixed'
    }
    const byName = Object.fromEntries(graph._nodes.map((node) => [String(node.id), node]))
    for (const [name, note] of Object.entries(layout.notes ?? {})) {
      const node = LiteGraph.createNode('MarkdownNote')
      graph.add(node)
      node.title = note.title
      node.widgets[0].value = note.text.join('\n')
      byName[name] = node
    }
    place(byName, layout)
    for (const [name, spec] of Object.entries(layout.subgraphs)) {
      byName[name] = fold(byName, spec, addGroups(byName, spec.groups))
      await pause(500)
      put(byName[name], layout.nodes[name])
    }
    addGroups(byName, layout.groups)
    app.canvas.setDirty(true, true)
    return byName
  }

  function addGroups(byName, specs) {
    const { app, LiteGraph } = window
    app.canvas.draw(true, true) // brings up to date the rectangles that the groups go by
    return specs.map((spec) => {
      const group = new LiteGraph.LGraphGroup(spec.title)
      group.color = spec.color
      app.graph.add(group)
      group.resizeTo(spec.nodes.map((name) => byName[name]), GROUP_PADDING_PX)
      return group
    })
  }

  // Some nodes, with their groups, as one node that shows the wanted inputs of theirs.
  function fold(byName, { title, nodes, shown }, groups) {
    const { subgraph, node } = window.app.graph.convertToSubgraph(new Set([...nodes.map((name) => byName[name]), ...groups]))
    subgraph.name = node.title = title
    for (const input of [...subgraph.inputs]) { // the front end shows some widgets of its own accord, among them the seed
      if (node.inputs.find((slot) => slot.name === input.name)?.link == null) subgraph.removeInput(input)
    }
    for (const wanted of shown) {
      const inner = subgraph.getNodeById(byName[wanted.node].id)
      const slot = inner?.inputs.find((input) => input.name === wanted.input)
      if (!slot) throw new Error(`node ${wanted.node} has no input ${wanted.input}`)
      subgraph.addInput(wanted.label, String(slot.type)).connect(slot, inner)
    }
    return node
  }

  function place(byName, layout) {
    for (const [name, node] of Object.entries(byName)) {
      if (!layout.nodes[name]) throw new Error(`the layout has no place for node ${name} (${node.type})`)
    }
    for (const [name, where] of Object.entries(layout.nodes)) {
      if (layout.subgraphs[name]) continue // still to be made
      if (!byName[name]) throw new Error(`the layout names node ${name}, which the prompt has not`)
      put(byName[name], where)
    }
  }

  function put(node, [x, y, width, height]) {
    const least = node.type === 'MarkdownNote' ? [0, 0] : node.computeSize()
    node.pos = [x, y]
    node.setSize([Math.max(width, least[0]), Math.max(height, least[1])])
  }

  // What is wrong with how a graph and the subgraphs in it look.
  function problems(graph) {
    return [graph, ...graph._nodes.map((node) => node.subgraph).filter(Boolean)].flatMap(problemsOfOne)
  }

  // In words: overlaps, groups without a title, links that run backwards.
  function problemsOfOne(graph) {
    const found = []
    const bar = (node) => ({ what: `node "${node.title}"`, x: node.pos[0], y: node.pos[1] - TITLE_BAR_PX, w: node.size[0], h: node.size[1] + TITLE_BAR_PX })
    const frame = (group) => ({ what: `group "${group.title}"`, x: group.pos[0], y: group.pos[1], w: group.size[0], h: group.size[1] })
    for (const list of [graph._nodes.map(bar), graph._groups.map(frame)]) {
      for (const [i, a] of list.entries()) for (const b of list.slice(i + 1)) {
        if (a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h) found.push(`${a.what} and ${b.what} overlap`)
      }
    }
    for (const group of graph._groups) if (!group.title || group.title === 'Group') found.push('a group has no title')
    for (const link of values(graph.links)) {
      const [from, to] = [graph.getNodeById(link.origin_id), graph.getNodeById(link.target_id)]
      if (!from || !to) continue // from or to the edge of a subgraph
      const below = to.pos[1] >= from.pos[1] + from.size[1] // in the same column, or in a row below
      if (from.pos[0] + from.size[0] > to.pos[0] && !below) found.push(`the link from "${from.title}" to "${to.title}" runs backwards`)
    }
    return found
  }

  // The prompt that Run would post. A node in a subgraph has the number that it has in there: "7" in place of "12:7".
  async function flatPrompt() {
    const { output } = await window.app.graphToPrompt()
    const inner = (id) => String(id).split(':').pop()
    const link = (value) => (Array.isArray(value) && value.length === 2 && output[value[0]] ? [inner(value[0]), value[1]] : value)
    return Object.fromEntries(Object.entries(output).map(([id, node]) => {
      const inputs = Object.fromEntries(Object.entries(node.inputs).map(([name, value]) => [name, link(value)]))
      return [inner(id), { ...node, inputs }]
    }))
  }

  // The view fitted to the graph that is shown.
  function fit() {
    const canvas = window.app.canvas
    const graph = canvas.graph
    const boxes = [...graph._nodes, ...graph._groups, graph.inputNode, graph.outputNode].filter(Boolean).map((item) => item.boundingRect ?? item._bounding)
    const [left, top] = [Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1]))]
    const [right, bottom] = [Math.max(...boxes.map((b) => b[0] + b[2])), Math.max(...boxes.map((b) => b[1] + b[3]))]
    const [width, height] = [window.innerWidth, window.innerHeight]
    const scale = Math.min((width - 60) / (right - left), (height - 120) / (bottom - top), 1)
    canvas.ds.scale = scale
    canvas.ds.offset = [(width / scale - (right - left)) / 2 - left, (height / scale - (bottom - top)) / 2 - top]
    canvas.setDirty(true, true)
  }

  return { build, fit, flatPrompt, pause, problems }
})()

// The dialog: which files, how large, under which licence, how much room; then progress, with a way out. Closing it cancels nothing.

const LOOK_MS = 700 // between two looks at a running download

const STYLE = `
  .faithdiff-weights { width: min(640px, 92vw); border: 1px solid var(--border-color, #555); border-radius: 8px; padding: 20px;
    background: var(--comfy-menu-bg, #222); color: var(--input-text, #ddd); font: 14px/1.45 system-ui, sans-serif; }
  .faithdiff-weights::backdrop { background: rgb(0 0 0 / 55%); }
  .faithdiff-weights h2 { margin: 0 0 8px; font-size: 18px; }
  .faithdiff-weights label { display: flex; gap: 10px; align-items: flex-start; margin: 10px 0; }
  .faithdiff-weights small { display: block; opacity: .8; overflow-wrap: anywhere; }
  .faithdiff-weights a { color: #7ab8ff; }
  .faithdiff-weights progress { width: 100%; height: 14px; margin-top: 12px; }
  .faithdiff-weights .error { color: #ff9c8f; white-space: pre-wrap; overflow-wrap: anywhere; }
  .faithdiff-weights footer { display: flex; justify-content: flex-end; gap: 10px; margin-top: 16px; }
  .faithdiff-weights button { padding: 7px 16px; border: 1px solid var(--border-color, #666); border-radius: 6px; cursor: pointer;
    background: var(--comfy-input-bg, #333); color: inherit; font: inherit; }
  .faithdiff-weights button:disabled { opacity: .5; cursor: default; }
  .faithdiff-weights button.main { background: #2563c9; color: #fff; border-color: #2563c9; }`

const units = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`)

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

let shown = null

// `ask`: the server; `inUse`: names of files in the open workflow; `done`: called with the state once all is there.
export function openDialog({ ask, inUse, done }) {
  shown?.remove()
  const body = element('div')
  const error = element('p', { className: 'error' })
  const footer = element('footer')
  const dialog = element('dialog', { className: 'faithdiff-weights' }, element('style', { textContent: STYLE }), element('h2', { textContent: 'Get weights' }), body, error, footer)
  dialog.dataset.testid = 'faithdiff-weights'
  dialog.addEventListener('keydown', (event) => event.stopPropagation()) // the canvas has keys of its own
  dialog.addEventListener('close', () => dialog.remove())
  shown = dialog
  document.body.append(dialog)
  dialog.showModal()

  const button = (text, act, main = false) => element('button', { type: 'button', textContent: text, onclick: act, className: main ? 'main' : '' })
  const close = button('Close', () => dialog.close())
  const guarded = (act) => async () => {
    error.textContent = ''
    try {
      await act()
    } catch (problem) {
      error.textContent = problem.message
    }
  }

  async function choose() {
    body.replaceChildren(element('p', { textContent: 'Asking the hub for sizes...' }))
    footer.replaceChildren(close)
    const { files, sizes } = await ask('/look', {})
    const reasons = Object.values(sizes).map((size) => size.error)
    if (reasons[0] && new Set(reasons).size === 1) return explain(files.filter((file) => sizes[file.id]), reasons[0])
    const rows = files.map((file) => row(file, sizes[file.id], inUse))
    const keep = element('input', { type: 'checkbox' })
    const sum = element('p')
    const start = button('Download', guarded(async () => {
      const ids = rows.filter(({ box }) => box.checked && !box.disabled).map(({ box }) => box.value)
      watch(await ask('/start', { ids, keep_bin: keep.checked }))
    }), true)
    const count = () => {
      const wanted = rows.filter(({ box }) => box.checked && !box.disabled)
      const needs = wanted.reduce((total, { size }) => total + size.needs_bytes, 0)
      const free = Math.min(...wanted.map(({ size }) => size.free_bytes))
      sum.textContent = wanted.length ? `Needs up to ${units(needs)} of room while it works; free: ${units(free)}.` : 'Nothing is chosen.'
      start.disabled = wanted.length === 0
    }
    rows.forEach(({ box }) => box.addEventListener('change', count))
    count()
    body.replaceChildren(
      element('p', { textContent: 'Files come from the Hugging Face hub onto the machine that runs ComfyUI, and are checked against its SHA-256.' }),
      ...rows.map(({ line }) => line),
      element('label', {}, keep, element('span', { textContent: 'Keep FaithDiff.bin beside the fp16 file made of it' })),
      sum,
    )
    footer.replaceChildren(close, start)
    start.focus()
  }

  // Nothing can be had: why, once, and how to go on without.
  function explain(files, reason) {
    error.textContent = reason
    body.replaceChildren(element('p', { textContent: 'Or load the files in a browser, put them into these folders, and press R:' }), ...files.map((file) => element('p', {},
      element('strong', { textContent: file.name }), ' from ', element('a', { href: file.page, target: '_blank', rel: 'noopener', textContent: file.page }),
      element('small', { textContent: `to ${file.folder}` }))))
    footer.replaceChildren(close, button('Try again', guarded(choose), true))
  }

  async function watch(state) {
    const line = element('p')
    const bar = element('progress', { max: 1, value: 0 })
    const cancel = button('Cancel', guarded(async () => {
      cancel.disabled = true
      await ask('/cancel', {})
    }))
    body.replaceChildren(line, bar)
    footer.replaceChildren(button('Hide', () => dialog.close()), cancel)
    let job = state.job
    while (job && ['running', 'cancelling'].includes(job.outcome)) { // goes on when the dialog is closed: the loaders wait for it
      line.textContent = job.outcome === 'cancelling' ? 'Cancelling...' : job.line
      bar.value = job.total_bytes ? job.done_bytes / job.total_bytes : 0
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
      state = await ask().catch(() => state) // a server that is busy or starts anew: look again
      job = state.job
    }
    if (job?.outcome === 'done') {
      line.textContent = 'Ready. The lists are read anew...'
      await done(state)
      return dialog.close()
    }
    const why = job?.outcome === 'cancelled' ? 'Cancelled. What has come is kept; the next download goes on with it.' : job?.error
    error.textContent = why ?? 'ComfyUI was started anew. What has come is kept; the next download goes on with it.'
    body.replaceChildren()
    footer.replaceChildren(close, button('Go on', guarded(choose), true))
  }

  guarded(async () => {
    const state = await ask()
    if (['running', 'cancelling'].includes(state.job?.outcome)) await watch(state)
    else await choose()
  })()
}

// A file with its box: chosen where it is FaithDiff itself, or where the workflow names it.
function row(file, size, inUse) {
  const there = !size
  const wanted = size?.size_bytes > 0 && !file.found && (file.id === 'faithdiff' || inUse.has(file.name))
  const box = element('input', { type: 'checkbox', value: file.id, checked: wanted, disabled: !(size?.size_bytes > 0) })
  const facts = there ? `${file.found} is there` : size.error ? size.error : `${units(size.size_bytes)}${file.halved ? `, kept as ${units(size.size_bytes / 2)} (fp16 .safetensors)` : ''}`
  const page = element('a', { href: file.page, target: '_blank', rel: 'noopener', textContent: file.page })
  const line = element('label', {}, box, element('span', {},
    element('strong', { textContent: `${file.what}: ${file.found && !there ? `convert ${file.found}` : file.name}` }),
    element('small', { textContent: facts, className: size?.error ? 'error' : '' }),
    element('small', {}, `Licence: ${file.licence}, `, page),
    element('small', { textContent: `To ${file.folder}` })))
  return { box, line, size }
}

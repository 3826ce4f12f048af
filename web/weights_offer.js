// A line at the lower edge of the page that offers the weights which the open workflow lacks.

const STYLE = `
  .faithdiff-offer { position: fixed; left: 50%; bottom: 24px; transform: translateX(-50%); z-index: 900; display: flex; gap: 12px;
    align-items: center; max-width: 92vw; padding: 10px 14px; border: 1px solid var(--border-color, #555); border-radius: 8px;
    background: var(--comfy-menu-bg, #222); color: var(--input-text, #ddd); font: 14px/1.4 system-ui, sans-serif;
    box-shadow: 0 4px 16px rgb(0 0 0 / 45%); }
  .faithdiff-offer button { padding: 6px 14px; border: 1px solid #2563c9; border-radius: 6px; background: #2563c9; color: #fff;
    font: inherit; cursor: pointer; white-space: nowrap; }
  .faithdiff-offer button.close { padding: 2px 6px; border: 0; background: none; color: inherit; }`

let shown = null
let dismissed = false // until the page is loaded anew

// `label`: of its button; `open`: what that does.
export function showOffer({ label, open }) {
  if (shown || dismissed) return
  shown = document.createElement('div')
  shown.className = 'faithdiff-offer'
  shown.dataset.testid = 'faithdiff-offer'
  shown.role = 'status'
  shown.append(
    Object.assign(document.createElement('style'), { textContent: STYLE }),
    Object.assign(document.createElement('span'), { textContent: "This workflow needs FaithDiff's weights." }),
    Object.assign(document.createElement('button'), { type: 'button', textContent: label, onclick: open }),
    Object.assign(document.createElement('button'), { type: 'button', className: 'close', title: 'Close', ariaLabel: 'Close', textContent: '\u2715', onclick: dismiss }),
  )
  document.body.append(shown)
}

function dismiss() {
  dismissed = true
  hideOffer()
}

export function hideOffer() {
  shown?.remove()
  shown = null
}

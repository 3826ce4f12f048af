// Runs an API prompt by @stable-canvas/comfyui-client; the pictures go to a folder. It asks for the history: by its socket it now and then
// ended without pictures, where the run was over before it listened.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client } from '@stable-canvas/comfyui-client'
import WebSocket from 'ws'

const [url, prompt, folder] = process.argv.slice(2)
const client = new Client({ api_host: new URL(url).host, WebSocket, fetch })
await client.connect()
const { images } = await client.enqueue_polling(JSON.parse(readFileSync(prompt, 'utf8')))
for (const { data } of images) {
  const answer = await fetch(data)
  writeFileSync(join(folder, new URL(data).searchParams.get('filename')), Buffer.from(await answer.arrayBuffer()))
}
client.close()
process.exit(0) // its socket connects anew for ever

// Runs an API prompt as the README of comfy-ui-client shows it; the pictures go to a folder.

import { readFileSync } from 'node:fs'
import { ComfyUIClient } from 'comfy-ui-client'

const [url, prompt, folder] = process.argv.slice(2)
const client = new ComfyUIClient(new URL(url).host, 'faithdiff-test')
await client.connect()
await client.saveImages(await client.getImages(JSON.parse(readFileSync(prompt, 'utf8'))), folder)
await client.disconnect()

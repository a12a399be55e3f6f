/** A large upload passes over the disk, not through the memory. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { member } from '../src/lib/member.ts'
import { ADMIN_KEY, type Executable, startExecutable } from './executable.ts'
import { sha256 } from './gateway.ts'

const MIB = 1024 * 1024
const UPLOAD_MIB = 500
const ADDED_MIB_MAX = 60

let gateway: Executable
let upstream: Upstream
beforeAll(async () => {
  gateway = await startExecutable({ config: { proxy: { request_body_limit_bytes: 0 } } })
  upstream = countingUpstream()
})
afterAll(async () => {
  upstream.stop()
  await gateway.dispose()
})

type Received = { boundary: string; bytes: number; hash: string }
type Upstream = { url: string; received: Promise<Received>; stop(): void }

/** Reads one request and keeps nothing of it. */
function countingUpstream(): Upstream {
  const received = Promise.withResolvers<Received>()
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    maxRequestBodySize: Number.POSITIVE_INFINITY,
    async fetch(request) {
      const hash = createHash('sha256')
      let bytes = 0
      for await (const piece of request.body ?? []) {
        hash.update(piece)
        bytes += piece.byteLength
      }
      const [, boundary = ''] = /boundary=(\S+)$/.exec(request.headers.get('content-type') ?? '') ?? []
      received.resolve({ boundary, bytes, hash: hash.digest('hex') })
      return Response.json({ text: 'long' })
    },
  })
  return { url: `http://127.0.0.1:${server.port}/v1`, received: received.promise, stop: () => server.stop(true) }
}

/** The most memory that the process ever had, in MiB. Source: proc(5), VmHWM */
function peakMib(pid: number): number {
  const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kib) / 1024
}

async function admin(path: string, body: unknown): Promise<string> {
  const answer = await fetch(`${gateway.adminUrl}/admin/v1${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return String(member(await answer.json(), 'id'))
}

test(`${UPLOAD_MIB} MiB of audio pass with less than ${ADDED_MIB_MAX} MiB of added memory`, async () => {
  const provider_key_id = await admin('/provider_keys', {
    display_name: 'fake',
    provider: 'vllm',
    adapter: 'openai',
    secret: 'none',
    api_base: upstream.url,
  })
  await admin('/models', { display_name: 'whisper', provider: 'vllm', model_name: 'upstream-whisper', provider_key_id })
  await admin('/apikeys', { key_hash: sha256('sk-upload'), allowed_models: ['*'] })
  const headers = { authorization: 'Bearer sk-upload', 'content-type': 'multipart/form-data; boundary=xyz' }
  const begin = (boundary: string) => `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n`
  const end = (boundary: string, model: string) =>
    `\r\n--${boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n${model}\r\n--${boundary}--\r\n`
  const piece = randomBytes(MIB)
  const before = peakMib(gateway.pid)
  let sent = 0
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent === 0) controller.enqueue(Buffer.from(begin('xyz')))
      if (sent < UPLOAD_MIB) {
        controller.enqueue(Uint8Array.from(piece))
      } else {
        controller.enqueue(Buffer.from(end('xyz', 'whisper')))
        controller.close()
      }
      sent += 1
    },
  })
  const answer = await fetch(`${gateway.proxyUrl}/v1/audio/transcriptions`, { method: 'POST', headers, body })
  expect(await answer.json()).toEqual({ text: 'long' })
  const { boundary, bytes, hash } = await upstream.received
  const wanted = createHash('sha256').update(begin(boundary))
  for (let index = 0; index < UPLOAD_MIB; index += 1) wanted.update(piece)
  wanted.update(end(boundary, 'upstream-whisper'))
  expect(hash).toBe(wanted.digest('hex'))
  expect(bytes).toBe(UPLOAD_MIB * MIB + begin(boundary).length + end(boundary, 'upstream-whisper').length)
  expect(peakMib(gateway.pid) - before).toBeLessThan(ADDED_MIB_MAX)
}, 60_000)

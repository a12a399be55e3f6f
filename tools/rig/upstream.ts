/**
 * An upstream for measuring and for drills: as little work a request as can be, and levers for bad manners. A process of its
 * own, so that its CPU is not counted as anybody else's.
 *
 *   bun tools/rig/upstream.ts [--tokens N] [--gap-ms N] [--hangup] [--fail-every N] [--port N]
 *
 * It prints `{"port":N}` when it listens. --hangup closes the connection 1 ms after each stream while announcing keep-alive,
 * as llama.cpp's server does. --fail-every answers each Nth request with 500. `GET /stats` answers {"requests","open",
 * "finished","cut","prompt","completion"}: streams now open, ended, and broken off by the other side; tokens that it told.
 */
import type { Socket } from 'bun'
import { numberFlag } from './flags.ts'

type Connection = { held: Buffer[]; stream: ReturnType<typeof setTimeout> | undefined; isStreaming: boolean; isLeaving: boolean }

const TOKENS = numberFlag('tokens', 100)
const GAP_MS = numberFlag('gap-ms', 20)
const HANGS_UP = process.argv.includes('--hangup')

const FAIL_EVERY = numberFlag('fail-every', 0)

const stats = { requests: 0, open: 0, finished: 0, cut: 0, prompt: 0, completion: 0 }

const CHUNK = '"object":"chat.completion.chunk","created":1700000000,"model":"rig-upstream-model"'
const ANSWER = JSON.stringify({
  id: 'chatcmpl-rig',
  object: 'chat.completion',
  created: 1_700_000_000,
  model: 'rig-upstream-model',
  choices: [
    {
      index: 0,
      message: { role: 'assistant', content: 'Hello from the private model. How can I help you today?' },
      logprobs: null,
      finish_reason: 'stop',
    },
  ],
  usage: { prompt_tokens: 42, completion_tokens: 13, total_tokens: 55 },
})
const WHOLE = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${ANSWER.length}\r\n\r\n${ANSWER}`
const FAILED = 'HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'
const STREAM_HEAD =
  'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n'

function framed(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`
}

const TOKEN = framed(
  `data: {"id":"chatcmpl-rig",${CHUNK},"choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n`,
)
const STREAM_END = framed(
  `data: {"id":"chatcmpl-rig",${CHUNK},"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n` +
    `data: {"id":"chatcmpl-rig",${CHUNK},"choices":[],"usage":{"prompt_tokens":42,"completion_tokens":${TOKENS},"total_tokens":${42 + TOKENS}}}\n\n` +
    'data: [DONE]\n\n',
)

function stream(socket: Socket<Connection>): void {
  socket.data.isStreaming = true
  stats.open += 1
  let left = TOKENS
  const step = () => {
    if (left > 0) {
      left -= 1
      socket.write(TOKEN)
      socket.data.stream = setTimeout(step, GAP_MS)
      return
    }
    socket.write(`${STREAM_END}0\r\n\r\n`)
    socket.data.isStreaming = false
    stats.open -= 1
    stats.finished += 1
    stats.prompt += 42
    stats.completion += TOKENS
    if (!HANGS_UP) return
    socket.data.isLeaving = true
    setTimeout(() => socket.end(), 1)
  }
  socket.write(STREAM_HEAD)
  step()
}

/** Takes one whole request from what has come; false while there is none. */
function serveOne(socket: Socket<Connection>): boolean {
  const { data } = socket
  const bytes = data.held.length === 1 && data.held[0] ? data.held[0] : Buffer.concat(data.held)
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd < 0) return false
  const head = bytes.toString('latin1', 0, headEnd)
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)
  const total = headEnd + 4 + length
  if (bytes.length < total) return false
  const rest = bytes.subarray(total)
  data.held = rest.length > 0 ? [rest] : []
  if (head.startsWith('GET /stats')) {
    const text = JSON.stringify(stats)
    socket.write(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`)
    return rest.length > 0
  }
  stats.requests += 1
  if (FAIL_EVERY > 0 && stats.requests % FAIL_EVERY === 0) socket.write(FAILED)
  else if (bytes.subarray(headEnd, total).includes('"stream":true')) stream(socket)
  else {
    stats.prompt += 42
    stats.completion += 13
    socket.write(WHOLE)
  }
  return rest.length > 0
}

const server = Bun.listen<Connection>({
  hostname: '127.0.0.1',
  port: numberFlag('port', 0),
  socket: {
    open(socket) {
      socket.data = { held: [], stream: undefined, isStreaming: false, isLeaving: false }
    },
    data(socket, piece) {
      // A server that is about to close reads no further request.
      if (socket.data.isLeaving) return
      socket.data.held.push(Buffer.from(piece))
      while (serveOne(socket)) {
        // One request after the other.
      }
    },
    close(socket) {
      clearTimeout(socket.data.stream)
      if (!socket.data.isStreaming) return
      socket.data.isStreaming = false
      stats.open -= 1
      stats.cut += 1
    },
    error() {},
  },
})
console.log(JSON.stringify({ port: server.port }))

/** Requests that end in every way there is: an upstream that behaves as the model's name says, and callers who leave when they like. */

export type EndingUpstream = { url: string; stop(): void }

/** What becomes of a request, by the upstream model that it is sent to. */
export const WAYS = ['whole', 'stream', 'refused', 'failed', 'cut-head', 'cut-stream', 'silent', 'silent-stream'] as const
export type Way = (typeof WAYS)[number]

const CHUNK = `data: ${JSON.stringify({
  id: 'x',
  object: 'chat.completion.chunk',
  created: 0,
  model: 'm',
  choices: [{ index: 0, delta: { content: 'word ' }, finish_reason: null }],
})}\n\n`
const ANSWER = JSON.stringify({
  id: 'x',
  object: 'chat.completion',
  created: 0,
  model: 'm',
  choices: [{ index: 0, message: { role: 'assistant', content: 'words' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
})
const framed = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`
const STREAM_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n'
const whole = (status: string, body: string) =>
  `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
const ERROR = '{"error":{"message":"no"}}'

export function endingUpstream(): EndingUpstream {
  const server = Bun.listen<{ received: string }>({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      open(socket) {
        socket.data = { received: '' }
      },
      data(socket, bytes) {
        socket.data.received += bytes.toString('latin1')
        const headEnd = socket.data.received.indexOf('\r\n\r\n')
        if (headEnd < 0) return
        const length = Number(/content-length: (\d+)/i.exec(socket.data.received)?.[1] ?? 0)
        if (socket.data.received.length < headEnd + 4 + length) return
        const body = socket.data.received.slice(headEnd + 4)
        socket.data.received = ''
        const way = /"model":"([^"]*)"/.exec(body)?.[1]
        if (way === 'whole') socket.write(whole('200 OK', ANSWER))
        else if (way === 'refused') socket.write(whole('422 Unprocessable', ERROR))
        else if (way === 'failed') socket.write(whole('500 Failed', ERROR))
        else if (way === 'cut-head') socket.end()
        else if (way === 'cut-stream') {
          socket.write(STREAM_HEAD + framed(CHUNK))
          setTimeout(() => socket.end(), 2)
        } else if (way === 'silent-stream') socket.write(STREAM_HEAD + framed(CHUNK))
        else if (way === 'stream') {
          socket.write(STREAM_HEAD + framed(CHUNK))
          setTimeout(() => socket.write(framed(`${CHUNK}data: [DONE]\n\n`) + framed('')), 5)
        }
      },
    },
  })
  return { url: `http://127.0.0.1:${server.port}/v1`, stop: () => server.stop(true) }
}

export type Endings = Map<string, number>

/**
 * Sends requests, `abreast` at a time, each to one of `models` in turn, half of them streamed; of every three callers one
 * stays, one leaves before anything has come, one leaves with the first byte.
 * returns: how often each outcome was seen, by way and outcome
 */
export async function endInEveryWay(options: {
  url: string
  keys: readonly string[]
  models: readonly string[]
  count: number
  abreast: number
}): Promise<Endings> {
  const { url, keys, models, count, abreast } = options
  const endings: Endings = new Map()
  let next = 0
  const one = async (n: number): Promise<string> => {
    const model = models[n % models.length] ?? ''
    const patience = Math.floor(n / models.length) % 3
    const isStream = Math.floor(n / models.length / 3) % 2 === 1
    const leaving = new AbortController()
    const timer = patience === 1 ? setTimeout(() => leaving.abort(), n % 7) : undefined
    try {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${keys[Math.floor(n / 7) % keys.length]}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model, stream: isStream, messages: [{ role: 'user', content: 'hello' }] }),
        signal: leaving.signal,
      })
      if (patience === 2) {
        await response.body?.getReader().read()
        leaving.abort()
        return `${response.status} left with the first byte`
      }
      const text = await response.text()
      return `${response.status}${text.includes('event: error') ? ' and an error event' : ''}`
    } catch {
      return leaving.signal.aborted ? 'left before an answer' : 'connection closed'
    } finally {
      clearTimeout(timer)
    }
  }
  const worker = async () => {
    for (let n = next++; n < count; n = next++) {
      const outcome = await one(n)
      endings.set(outcome, (endings.get(outcome) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: abreast }, worker))
  return endings
}

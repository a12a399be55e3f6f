/**
 * A load client over plain sockets: callers that ask one request after the other on a kept-alive connection, stream or not,
 * to the end or cut off after some tokens. As a process: `bun tools/rig/load.ts --port N --key K --model M [--secs N]
 * [--count N] [--conns N] [--stream] [--cut-after N]` prints the outcome as JSON.
 */
import { numberFlag, textFlag } from './flags.ts'

export type LoadOptions = {
  port: number
  key: string
  model: string
  /** Callers at once. */
  conns: number
  /** Ends after this many seconds; requests that are under way then are not counted. */
  secs?: number | undefined
  /** Ends after this many requests. */
  count?: number | undefined
  isStream: boolean
  /** The caller hangs up after this many tokens, and comes back on a new connection. */
  cutAfter?: number | undefined
  /** No request takes longer: what hangs is an error. */
  timeoutMs?: number | undefined
}

export type Percentiles = { p50: number; p90: number; p99: number; max: number }

export type Outcome = {
  ok: number
  errors: number
  /** The first few, in words. */
  messages: string[]
  seconds: number
  tokens: number
  /** Milliseconds from a request to the last byte of its answer. */
  latency: Percentiles
  /** Milliseconds from a request to the first token of its stream. */
  firstToken: Percentiles
}

const TIMEOUT_MS = 60_000
const MESSAGES_MAX = 5

export async function runLoad(options: LoadOptions): Promise<Outcome> {
  const run = new Run(options)
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: options.conns }, (_, index) => run.caller(index)))
  return run.outcome((performance.now() - startedAt) / 1000)
}

class Run {
  private readonly request: string
  private readonly latencies: number[] = []
  private readonly firstTokens: number[] = []
  private readonly messages: string[] = []
  private started = 0
  private ok = 0
  private errors = 0
  private tokens = 0
  private readonly endsAt: number

  constructor(private readonly options: LoadOptions) {
    const { port, key, model, isStream, secs } = options
    const body = JSON.stringify({
      model,
      messages: [{ role: 'user', content: 'Say hello from the private model.' }],
      ...(isStream ? { stream: true } : {}),
    })
    this.request =
      `POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nauthorization: Bearer ${key}\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
    this.endsAt = secs === undefined ? Number.POSITIVE_INFINITY : performance.now() + secs * 1000
  }

  /** One caller: a request, its answer, the next, until the time or the count is up. */
  async caller(index: number): Promise<void> {
    // Callers do not all come in the same millisecond.
    await Bun.sleep((index * 200) / this.options.conns)
    let connection: Connection | undefined
    while (performance.now() < this.endsAt && (this.options.count === undefined || this.started < this.options.count)) {
      this.started += 1
      try {
        if (!connection?.isUsable) connection = await Connection.open(this.options.port)
        await this.ask(connection)
      } catch (error) {
        connection?.close()
        connection = undefined
        this.errors += 1
        const message = error instanceof Error ? error.message : String(error)
        if (this.messages.length < MESSAGES_MAX && !this.messages.includes(message)) this.messages.push(message)
        // Whatever refuses at once is not asked in a tight loop.
        await Bun.sleep(5)
      }
    }
    connection?.close()
  }

  private async ask(connection: Connection): Promise<void> {
    const { cutAfter, isStream, timeoutMs = TIMEOUT_MS } = this.options
    const askedAt = performance.now()
    const answer = await connection.ask(this.request, { tokensMax: cutAfter, timeoutMs })
    if (answer.isCut) connection.close()
    if (performance.now() > this.endsAt) return
    if (answer.status !== 200) throw new Error(`status ${answer.status}: ${answer.text.slice(0, 200)}`)
    if (answer.hasError) throw new Error(`a stream ended with an error: ${answer.text.slice(-300)}`)
    if (isStream && !answer.isCut && !answer.text.endsWith('data: [DONE]\n\n')) {
      throw new Error(`a stream ended without [DONE]: ${JSON.stringify(answer.text.slice(-300))}`)
    }
    this.ok += 1
    this.tokens += answer.tokens
    this.latencies.push(performance.now() - askedAt)
    if (answer.firstTokenAt !== undefined) this.firstTokens.push(answer.firstTokenAt - askedAt)
  }

  outcome(seconds: number): Outcome {
    return {
      ok: this.ok,
      errors: this.errors,
      messages: this.messages,
      seconds,
      tokens: this.tokens,
      latency: percentiles(this.latencies),
      firstToken: percentiles(this.firstTokens),
    }
  }
}

export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: sorted.at(-1) ?? 0 }
}

type Answer = {
  status: number
  /** The body, or the last of it: enough to see how it ended. */
  text: string
  tokens: number
  firstTokenAt: number | undefined
  hasError: boolean
  isCut: boolean
}

const TEXT_KEPT = 4096

/** One kept-alive connection that answers are read from, framed by length or in chunks. Source: RFC 9112 §6, §7.1. */
class Connection {
  private held = ''
  private isOpen = true
  private wake: (() => void) | undefined

  private constructor(private socket: { write(text: string): number; end(): void } | undefined) {}

  static async open(port: number): Promise<Connection> {
    const connection = new Connection(undefined)
    connection.socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_socket, piece) => connection.take(piece.toString('latin1')),
        close: () => connection.lose(),
        error: () => connection.lose(),
        end: () => connection.lose(),
      },
    })
    return connection
  }

  get isUsable(): boolean {
    return this.isOpen
  }

  close(): void {
    this.isOpen = false
    this.socket?.end()
  }

  private take(text: string): void {
    this.held += text
    this.wake?.()
  }

  private lose(): void {
    this.isOpen = false
    this.wake?.()
  }

  /** Waits for more; throws when there will be none. */
  private async more(deadline: number): Promise<void> {
    if (!this.isOpen) throw new Error('the connection was closed before the answer was over')
    const left = deadline - performance.now()
    if (left <= 0) throw new Error('no answer in time')
    const { promise, resolve } = Promise.withResolvers<void>()
    this.wake = resolve
    const timer = setTimeout(resolve, left)
    await promise
    clearTimeout(timer)
    this.wake = undefined
  }

  private async until(mark: string, deadline: number): Promise<string> {
    for (let from = 0; ; ) {
      const at = this.held.indexOf(mark, from)
      if (at >= 0) {
        const text = this.held.slice(0, at)
        this.held = this.held.slice(at + mark.length)
        return text
      }
      from = Math.max(0, this.held.length - mark.length)
      await this.more(deadline)
    }
  }

  private async exactly(length: number, deadline: number): Promise<string> {
    while (this.held.length < length) await this.more(deadline)
    const text = this.held.slice(0, length)
    this.held = this.held.slice(length)
    return text
  }

  async ask(request: string, { tokensMax = Number.POSITIVE_INFINITY, timeoutMs }: AskOptions): Promise<Answer> {
    const deadline = performance.now() + timeoutMs
    this.socket?.write(request)
    const head = await this.until('\r\n\r\n', deadline)
    const answer: Answer = {
      status: Number(head.slice(9, 12)),
      text: '',
      tokens: 0,
      firstTokenAt: undefined,
      hasError: false,
      isCut: false,
    }
    if (/\r\nconnection: *close/i.test(head)) this.isOpen = false
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1]
    if (length !== undefined) {
      answer.text = await this.exactly(Number(length), deadline)
      return answer
    }
    for (;;) {
      const size = Number.parseInt(await this.until('\r\n', deadline), 16)
      const text = (await this.exactly(size + 2, deadline)).slice(0, -2)
      if (size === 0) return answer
      answer.text = (answer.text + text).slice(-TEXT_KEPT)
      answer.hasError ||= text.includes('event: error')
      const tokens = text.split('"content":').length - 1
      if (tokens > 0) answer.firstTokenAt ??= performance.now()
      answer.tokens += tokens
      if (answer.tokens >= tokensMax) {
        answer.isCut = true
        return answer
      }
    }
  }
}

type AskOptions = { tokensMax: number | undefined; timeoutMs: number }

if (import.meta.main) {
  const outcome = await runLoad({
    port: numberFlag('port', 3000),
    key: textFlag('key') ?? '',
    model: textFlag('model') ?? '',
    conns: numberFlag('conns', 64),
    secs: textFlag('secs') === undefined ? undefined : numberFlag('secs', 0),
    count: textFlag('count') === undefined ? undefined : numberFlag('count', 0),
    isStream: process.argv.includes('--stream'),
    cutAfter: textFlag('cut-after') === undefined ? undefined : numberFlag('cut-after', 0),
  })
  console.log(JSON.stringify(outcome))
}

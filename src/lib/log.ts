/**
 * Log lines on stderr: time, level, target, message and `key=value` fields, one line an event.
 *
 * Lines go through a bounded queue of our own and are written asynchronously: a synchronous write on a pipe that nobody
 * reads would stop the whole event loop. What does not fit is dropped and counted, and the next line that fits says so.
 * Nothing here redacts: callers never hand over a secret, a prompt or a completion.
 */
export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'off'] as const
export type Level = (typeof LEVELS)[number]
export type Fields = Record<string, string | number | boolean | undefined>

export interface Log {
  /** True when a line of this level and target would be written: lets hot paths skip building it. */
  enabled(level: Level, target?: string): boolean
  trace(message: string, fields?: Fields): void
  debug(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  error(message: string, fields?: Fields): void
  /** At info: a line that is written for every request, whose author puts it into words with less work than `info` needs. */
  tell<T>(wording: Wording<T>, subject: T): void
  /** The same log under another target, the room that speaks: `proxy`, `store`, `auth` … */
  as(target: string): Log
  /** Waits until what is queued is written, at most `timeoutMs`. */
  flush(timeoutMs: number): Promise<void>
}

/** What a line says of its subject, in both forms: the same fields under the same names. */
export type Wording<T> = {
  message: string
  /** The fields as they stand behind the message, each with a space before it, and the end of the line: ` path="/a" status=200\n`. */
  text(subject: T): string
  fields(subject: T): Fields
}

/** `done` is called once the text is out, or lost: then with the error. */
export type Sink = { write(text: string, done: (error?: unknown) => void): void; isTerminal: boolean }

const QUEUE_BYTES_MAX = 4 * 1024 * 1024
/** So many bytes do not wait for more. */
const GATHERED_BYTES_MAX = 64 * 1024
const INFO = LEVELS.indexOf('info')
const ERROR = LEVELS.indexOf('error')

/** One rule of a filter: lines of `target` and of what lies below it (`store::sqlite`) from `level` up. */
type Directive = { target: string; level: number }

/**
 * A log filter in the form `info`, or `warn,proxy=debug,store=off` (the grammar that RUST_LOG has).
 * throws: Error naming the part that is not understood
 */
export function parseFilter(text: string): { fallback: number; directives: Directive[] } {
  let fallback = LEVELS.indexOf('error')
  let hasFallback = false
  const directives: Directive[] = []
  for (const part of text.split(',').map(each => each.trim())) {
    if (part === '') continue
    const [left = '', right] = part.split('=', 2)
    const name = (right ?? left).trim().toLowerCase()
    const level = (LEVELS as readonly string[]).indexOf(name)
    if (level < 0) {
      throw new Error(`expected one of ${LEVELS.join(', ')}, or directives such as "info,proxy=debug"`)
    }
    if (right === undefined) {
      fallback = level
      hasFallback = true
    } else directives.push({ target: left.trim(), level })
  }
  if (!hasFallback && directives.length === 0) fallback = LEVELS.indexOf('info')
  directives.sort((a, b) => b.target.length - a.target.length)
  return { fallback, directives }
}

/** A text as it stands behind `key=`: in double quotes, control characters escaped. */
export function quoted(text: string): string {
  // Nearly every text is plain: telling that costs a fifth of escaping it.
  if (PLAIN.test(text)) return `"${text}"`
  return JSON.stringify(text).replace(UNSHOWN, escapeControl)
}

/** A value as it stands behind `key=`: numbers and booleans are bare. */
function render(value: string | number | boolean): string {
  return typeof value === 'string' ? quoted(value) : String(value)
}
/** What terminals act on, or what turns the order of a line round, beside what JSON escapes by itself. */
const UNSHOWN = /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g
/** Printable ASCII without quote and backslash. */
const PLAIN = /^[ !#-[\]-~]*$/

function escapeControl(character: string): string {
  return '\\u' + character.charCodeAt(0).toString(16).padStart(4, '0')
}

export type LogOptions = {
  filter: string
  format?: 'text' | 'json'
  sink?: Sink
  /** Epoch milliseconds. */
  now?: () => number
  /**
   * Milliseconds that a line below `error` may wait for others to go out with: a write of its own costs three times what the
   * line costs. 0: none waits.
   */
  gatherMs?: number
}

export function createLog({ filter, format = 'text', sink = stderrSink(), now = Date.now, gatherMs = 0 }: LogOptions): Log {
  const { fallback, directives } = parseFilter(filter)
  const levels = new Map<string, number>()
  const levelOf = (target: string): number => {
    let level = levels.get(target)
    if (level === undefined) {
      const rule = directives.find(each => target === each.target || target.startsWith(`${each.target}::`))
      level = rule ? rule.level : fallback
      levels.set(target, level)
    }
    return level
  }

  const queue: string[] = []
  let queuedBytes = 0
  let dropped = 0
  let isWriting = false
  const waiters: (() => void)[] = []

  let gathering: ReturnType<typeof setTimeout> | undefined
  const pump = () => {
    clearTimeout(gathering)
    gathering = undefined
    if (isWriting) return
    if (queue.length === 0) {
      for (const wake of waiters.splice(0)) wake()
      return
    }
    isWriting = true
    const text = queue.join('')
    const bytes = queuedBytes
    const lines = queue.length
    queue.length = 0
    sink.write(text, error => {
      queuedBytes -= bytes
      isWriting = false
      if (error !== undefined && error !== null) dropped += lines
      else if (dropped > 0 && queuedBytes < QUEUE_BYTES_MAX / 2) {
        const count = dropped
        dropped = 0
        write(LEVELS.indexOf('warn'), 'log', 'log lines were lost: nobody read them in time, or their disk was full', { count })
      }
      pumpSoon()
    })
  }

  const pumpSoon = () => {
    if (gatherMs === 0 || waiters.length > 0 || queuedBytes > GATHERED_BYTES_MAX) pump()
    else if (queue.length > 0) gathering ??= setTimeout(pump, gatherMs)
  }

  const write = (level: number, target: string, message: string, fields: Fields | undefined) =>
    put(level, format === 'json' ? jsonLine(level, target, message, fields) : textLine(level, target, message, fields))

  const put = (level: number, line: string) => {
    if (queuedBytes + line.length > QUEUE_BYTES_MAX) {
      dropped += 1
      return
    }
    queue.push(line)
    queuedBytes += line.length
    if (level >= ERROR) pump()
    else pumpSoon()
  }

  /** Many lines fall into one millisecond. */
  let stampedMs = Number.NaN
  let stampText = ''
  const stamp = () => {
    const ms = now()
    if (ms !== stampedMs) {
      stampedMs = ms
      stampText = new Date(ms).toISOString()
    }
    return stampText
  }

  const textLine = (level: number, target: string, message: string, fields: Fields | undefined) => {
    let line = `${stamp()} ${shownLevel(level)} ${target}: ${message.includes('\n') || message.includes('\r') ? message.replace(/[\r\n]+/g, ' ') : message}`
    for (const key in fields) {
      const value = fields[key]
      if (value !== undefined) line += ` ${key}=${render(value)}`
    }
    return `${line}\n`
  }

  const shownLevels = LEVELS.map((name, level) => {
    const padded = name.toUpperCase().padStart(5)
    return sink.isTerminal ? `\u001b[${COLOURS[level] ?? 0}m${padded}\u001b[0m` : padded
  })
  const shownLevel = (level: number) => shownLevels[level] ?? ''

  const jsonLine = (level: number, target: string, message: string, fields: Fields | undefined) =>
    `${JSON.stringify({ timestamp: stamp(), level: LEVELS[level], target, message, ...fields })}\n`

  const logs = new Map<string, Log>()
  const as = (target: string): Log => {
    let log = logs.get(target)
    if (!log) {
      log = bind(target)
      logs.set(target, log)
    }
    return log
  }
  const bind = (target: string): Log => {
    const headOf = (message: string) => ` ${shownLevel(INFO)} ${target}: ${message}`
    let toldMessage = ''
    let toldHead = headOf(toldMessage)
    const at = (level: number) => (message: string, fields?: Fields) => {
      if (level >= levelOf(target)) write(level, target, message, fields)
    }
    return {
      enabled: (level, other = target) => LEVELS.indexOf(level) >= levelOf(other),
      trace: at(0),
      debug: at(1),
      info: at(2),
      warn: at(3),
      error: at(4),
      tell(wording, subject) {
        if (INFO < levelOf(target)) return
        if (format === 'json') write(INFO, target, wording.message, wording.fields(subject))
        else {
          if (wording.message !== toldMessage) {
            toldMessage = wording.message
            toldHead = headOf(toldMessage)
          }
          put(INFO, stamp() + toldHead + wording.text(subject))
        }
      },
      as,
      flush: timeoutMs => {
        if (queue.length === 0 && !isWriting) return Promise.resolve()
        const { promise, resolve } = Promise.withResolvers<void>()
        const timer = setTimeout(resolve, timeoutMs)
        waiters.push(() => {
          clearTimeout(timer)
          resolve()
        })
        pump()
        return promise
      },
    }
  }
  return as('aisix')
}

const COLOURS = [90, 36, 32, 33, 31]

/**
 * stderr of this process. `process.stderr.write` does not block on a full pipe; its callback tells when it was taken. A
 * write that fails (a full disk under the log) is an `error` event too: unheard it would be an uncaught exception, which is
 * logged, which fails again, for ever.
 */
function stderrSink(): Sink {
  let settle: ((error?: unknown) => void) | undefined
  process.stderr.on('error', error => settle?.(error))
  return {
    isTerminal: process.stderr.isTTY === true,
    write: (text, done) => {
      const once = (error?: unknown) => {
        if (settle !== once) return
        settle = undefined
        done(error)
      }
      settle = once
      process.stderr.write(text, once)
    },
  }
}

/** A log that keeps nothing: for tests and for commands that speak for themselves. */
export const silentLog: Log = createLog({ filter: 'off', sink: { isTerminal: false, write: (_text, done) => done() } })

/** Text from outside as it may stand in a message: control characters escaped, 256 characters at most. */
export function printable(text: string): string {
  const cut = text.length > 256 ? `${text.slice(0, 255)}…` : text
  return cut.replace(/[\u0000-\u001f]/g, escapeControl).replace(UNSHOWN, escapeControl)
}

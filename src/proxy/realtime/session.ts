import { GatewayError } from '../../errors.ts'
import type { Exchange, Usage } from '../../exchange.ts'
import type { Gateway } from '../../gateway.ts'
import { type Deadline, startDeadline } from '../../lib/deadlines.ts'
import { member } from '../../lib/member.ts'
import { countOf } from '../../wire/count.ts'
import { logCause, settle } from '../settle.ts'
import type { Frame, LinkListener, UpstreamLink } from './upstream-link.ts'

export type CallerSocket = Bun.ServerWebSocket<Session>

export type SessionTimings = {
  /**
   * Milliseconds between the pings to a caller from whom nothing is read: its leaving would not be noticed. Whoever reads on
   * notices at once.
   */
  pausedPingMs: number
  /** Milliseconds between the pings to an upstream; one that answers none of `UNANSWERED_MAX` in a row is gone. */
  upstreamPingMs: number
}

export const SESSION_TIMINGS: SessionTimings = { pausedPingMs: 1_000, upstreamPingMs: 30_000 }

const UNANSWERED_MAX = 4

/** Ends of the upstream that are failures of its own; the others are a session's ordinary ends, or the caller's doing. */
const UPSTREAM_FAULTS: ReadonlySet<number> = new Set([1006, 1011, 1013, 1014, 1015])

/** What a caller ends its session with in good order: closed, going away, no code, or a code of its own. */
function isOrderly(code: number): boolean {
  return code === 1000 || code === 1001 || code === 1005 || code >= 3000
}

/** Codes that may stand in a Close frame. source: RFC 6455 §7.4; IANA, "WebSocket Close Code Number Registry" */
function maySend(code: number): boolean {
  return (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) || (code >= 3000 && code <= 4999)
}

/**
 * One caller and its upstream, from the moment that both are connected. Frames pass unchanged and in order; whoever reads
 * slower than the other one writes stops it: nothing more is read from that side until all that was read is written, so that
 * a session holds one reading of the socket at most, or one message where that is larger.
 */
export class Session implements LinkListener {
  /** Its place among the open sessions. */
  slot = -1
  private caller: CallerSocket | undefined
  private isOver = false
  private unanswered = 0
  private pinging: Deadline | undefined
  private upstreamPinging: Deadline | undefined

  constructor(
    private readonly gateway: Gateway,
    private readonly exchange: Exchange,
    private readonly upstream: UpstreamLink,
    private readonly timings: SessionTimings,
    /** Why the caller could not open this session now; undefined where it could. Asked with each ping to the upstream. */
    private readonly refusal: () => string | undefined,
    private readonly onOver: (session: Session) => void,
  ) {}

  /** The caller's side is open. */
  opened(caller: CallerSocket): void {
    this.caller = caller
    this.pingUpstreamLater()
    this.upstream.listen(this)
  }

  onFrame(frame: Frame): void {
    const { caller, exchange } = this
    this.unanswered = 0
    if (this.isOver || !caller) return
    if (typeof frame === 'string' && frame.includes('"response.done"')) this.noteUsage(frame)
    if (exchange.firstByteAt === undefined) this.noteFirst()
    const sent = typeof frame === 'string' ? caller.sendText(frame) : caller.sendBinary(frame)
    // -1: it is queued, since the caller reads slower than the upstream writes.
    if (sent === -1) this.upstream.pause()
  }

  /** The caller has taken something of what was queued for it. */
  drained(): void {
    if (!this.isOver && this.caller?.getBufferedAmount() === 0) this.upstream.resume()
  }

  fromCaller(frame: Frame): void {
    if (this.isOver || this.upstream.send(frame, this.onWritten)) return
    this.caller?.pause()
    this.pinging ??= startDeadline(this.timings.pausedPingMs, { onDeadline: () => this.pingCaller() })
  }

  private readonly onWritten = () => {
    if (this.isOver || this.caller?.isPaused !== true) return
    this.pinging?.cancel()
    this.pinging = undefined
    this.caller.resume()
  }

  private pingCaller(): void {
    if (this.isOver) return
    this.caller?.ping()
    this.pinging = startDeadline(this.timings.pausedPingMs, { onDeadline: () => this.pingCaller() })
  }

  private pingUpstreamLater(): void {
    this.upstreamPinging = startDeadline(this.timings.upstreamPingMs, { onDeadline: () => this.pingUpstream() })
  }

  private pingUpstream(): void {
    if (this.isOver) return
    const reason = this.refusal()
    if (reason !== undefined) {
      this.refuse(reason)
      return
    }
    // While nothing is read from it, neither an answer nor its end would be seen.
    if (this.upstream.isPaused) this.pingUpstreamLater()
    else if (this.unanswered < UNANSWERED_MAX) {
      this.unanswered += 1
      this.upstream.ping()
      this.pingUpstreamLater()
    } else {
      const message = `upstream answered no ping for ${UNANSWERED_MAX * this.timings.upstreamPingMs}ms`
      this.fail(new GatewayError('timeout', message), 'upstream is silent')
    }
  }

  onPong(): void {
    this.unanswered = 0
  }

  onClosed(code: number, reason: string, cause: Error | undefined): void {
    if (this.isOver) return
    if (UPSTREAM_FAULTS.has(code)) {
      const what = code === 1006 ? 'upstream broke off the session' : `upstream ended the session with code ${code}`
      this.noteFailure(new GatewayError('stream_aborted', what, { cause }))
    }
    const { caller } = this
    this.end()
    if (maySend(code)) caller?.close(code, reason)
    else if (code === 1005) caller?.close(1000)
    else caller?.close(1011, 'upstream connection lost')
  }

  /** The caller's side is over. in: 1006 where there was no Close frame, or one of ours to a caller that breaks the protocol */
  callerClosed(code: number, reason: string): void {
    if (this.isOver) return
    if (!isOrderly(code)) this.exchange.status = 499
    this.end()
    if (maySend(code)) this.upstream.close(code, reason)
    else if (code === 1005) this.upstream.close(undefined, '')
    else this.upstream.terminate()
  }

  /** The gateway stops: both sides are told to go elsewhere. */
  goAway(): void {
    if (this.isOver) return
    const { caller } = this
    this.end()
    caller?.close(1001, 'the gateway is shutting down')
    this.upstream.close(1001, '')
  }

  private fail(error: GatewayError, reason: string): void {
    const { caller } = this
    this.noteFailure(error)
    this.end()
    caller?.close(1011, reason)
    this.upstream.terminate()
  }

  /** The caller may go on no longer. source: RFC 6455 §7.4.1, 1008 */
  private refuse(reason: string): void {
    const { caller } = this
    this.noteFailure(new GatewayError('permission_denied', reason))
    this.end()
    caller?.close(1008, reason)
    this.upstream.close(1000, '')
  }

  /** The head said 101; what the log and the metrics say is how it went. */
  private noteFailure(error: GatewayError): void {
    this.exchange.error = error
    this.exchange.status = error.status
    logCause(this.gateway, this.exchange)
  }

  private end(): void {
    this.isOver = true
    this.pinging?.cancel()
    this.upstreamPinging?.cancel()
    settle(this.gateway, this.exchange)
    this.onOver(this)
  }

  private noteFirst(): void {
    const { exchange } = this
    const now = this.gateway.clock.monotonic()
    exchange.firstByteAt = now
    if (exchange.attempt) exchange.attempt.firstEventMs = now - exchange.attempt.startedAt
  }

  private noteUsage(text: string): void {
    const usage = usageOf(text)
    if (usage) this.exchange.usage = sum(this.exchange.usage, usage)
  }
}

/**
 * Tokens of one answer; undefined where an event is none, or tells none.
 * source: OpenAI API reference, "Realtime server events", `response.done`: `response.usage`
 */
function usageOf(text: string): Usage | undefined {
  let event: unknown
  try {
    event = JSON.parse(text)
  } catch {
    return undefined
  }
  const usage = member(event, 'type') === 'response.done' ? member(member(event, 'response'), 'usage') : undefined
  const promptTokens = countOf(member(usage, 'input_tokens'))
  const completionTokens = countOf(member(usage, 'output_tokens'))
  if (promptTokens + completionTokens === 0) return undefined
  return {
    promptTokens,
    completionTokens,
    totalTokens: Math.max(countOf(member(usage, 'total_tokens')), promptTokens + completionTokens),
    cachedTokens: countOf(member(member(usage, 'input_token_details'), 'cached_tokens')),
    reasoningTokens: countOf(member(member(usage, 'output_token_details'), 'reasoning_tokens')),
    isEstimated: false,
  }
}

function sum(before: Usage | undefined, now: Usage): Usage {
  if (!before) return now
  return {
    promptTokens: before.promptTokens + now.promptTokens,
    completionTokens: before.completionTokens + now.completionTokens,
    totalTokens: before.totalTokens + now.totalTokens,
    cachedTokens: before.cachedTokens + now.cachedTokens,
    reasoningTokens: before.reasoningTokens + now.reasoningTokens,
    isEstimated: false,
  }
}

/** The metrics and status listener: what monitoring reads, without authentication and without a secret. */
import type { Clock } from '../gateway.ts'
import type { Log } from '../lib/log.ts'
import type { ModelHealth } from '../model-health.ts'
import type { Store } from '../store/store.ts'
import { configStatus, hasConfig } from './config.ts'
import { frontDoor, withoutBody, withStandardHeaders } from './front-door.ts'
import { createConfigMetrics, TEXT_FORMAT } from './metrics.ts'
import { modelStatus } from './models.ts'

export type StatusOptions = {
  store: Store
  log: Log
  clock: Clock
  modelHealth: ModelHealth
  /** Path of the scrape page, with its leading slash, such as `/metrics`. */
  metricsPath: string
  /** Further pieces of the scrape page, behind the `aisix_config_*` families; made as they are sent. */
  moreMetrics?: () => Iterable<string>
}

export type StatusApp = { fetch(request: Request): Promise<Response> }

/**
 * Answers `/status/config`, `/status/ready`, `/status/models` and the scrape page, to GET and HEAD.
 * source: control-bootstrap §5.2 and §5.3
 */
export function createStatusApp({ store, log, clock, modelHealth, metricsPath, moreMetrics }: StatusOptions): StatusApp {
  const logStatus = log.as('status')
  const configMetrics = createConfigMetrics()
  const pages = new Map<string, () => Response>([
    ['/status/config', () => json(200, configStatus(store))],
    ['/status/ready', () => (hasConfig(store.status) ? text(200, 'ok') : text(503, 'no configuration available'))],
    [
      '/status/models',
      () => {
        if (hasConfig(store.status)) return json(200, modelStatus(store.snapshot, modelHealth, clock.now()))
        return json(500, { error_msg: 'failed to list models' })
      },
    ],
    // Last, so that a scrape path that an operator put on one of the others wins.
    [metricsPath, () => scrapePage(configMetrics(store.status), moreMetrics?.() ?? [])],
  ])

  const answer = async (request: Request): Promise<Response> => {
    const page = pages.get(new URL(request.url).pathname)
    if (!page) return new Response(null, { status: 404 })
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return new Response(null, { status: 405, headers: { allow: 'GET, HEAD' } })
    }
    return request.method === 'HEAD' ? withoutBody(page()) : page()
  }

  return {
    async fetch(request) {
      const entered = frontDoor(request)
      if (entered instanceof Response) return entered
      try {
        return withStandardHeaders(await answer(entered))
      } catch (error) {
        logStatus.error('request failed', { error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
        return withStandardHeaders(text(500, "internal error; see the gateway's log"))
      }
    },
  }
}

function json(status: number, document: unknown): Response {
  return Response.json(document, { status, headers: { 'cache-control': 'no-store' } })
}

/** Tens of thousands of series are sent piece by piece, so that requests go on meanwhile. */
function scrapePage(first: string, more: Iterable<string>): Response {
  const pieces = more[Symbol.iterator]()
  const encoder = new TextEncoder()
  let isFirst = true
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (isFirst) {
        isFirst = false
        return controller.enqueue(encoder.encode(first))
      }
      // The runtime asks for the next piece at once: without this nothing else would get its turn.
      await new Promise(resolve => setImmediate(resolve))
      const { done, value } = pieces.next()
      if (done) controller.close()
      else controller.enqueue(encoder.encode(value))
    },
  })
  return new Response(body, { status: 200, headers: { 'content-type': TEXT_FORMAT, 'cache-control': 'no-store' } })
}

function text(status: number, body: string, contentType = 'text/plain; charset=utf-8'): Response {
  return new Response(body, { status, headers: { 'content-type': contentType, 'cache-control': 'no-store' } })
}

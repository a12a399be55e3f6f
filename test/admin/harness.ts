import { type AdminOptions, createAdminApp } from '../../src/admin/app.ts'
import type { Lifecycle } from '../../src/gateway.ts'
import { InFlight } from '../../src/in-flight.ts'
import { createLog, type Log } from '../../src/lib/log.ts'
import { createModelHealth } from '../../src/model-health.ts'
import { createCatalog } from '../../src/pricing/catalog-file.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Store } from '../../src/store/store.ts'
import { testTelemetry } from '../telemetry.ts'
import { memoryLedger } from './memory-ledger.ts'

export const ADMIN_KEY = 'admin-test-key-1'
export const SECOND_ADMIN_KEY = 'admin-test-key-2'

export type Answer = { status: number; headers: Headers; text: string; body: unknown }

export type Harness = {
  store: Store
  lifecycle: Lifecycle
  /** Lines of the log so far. */
  lines: string[]
  /** Sends one request; a body that is no string is written as JSON. Presents the admin key unless headers are given. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
  fetch(request: Request): Promise<Response>
  /** Wall clock of the gateway, epoch milliseconds; tests move it. */
  clock: { nowMs: number }
}

export function captureLog(lines: string[]): Log {
  return createLog({
    filter: 'trace',
    sink: {
      isTerminal: false,
      write: (text, done) => {
        lines.push(...text.trimEnd().split('\n'))
        done()
      },
    },
  })
}

export function openAdmin(options: Partial<AdminOptions> = {}): Harness {
  const time = { nowMs: Date.parse('2030-01-01T00:00:00Z') }
  const clock = { now: () => time.nowMs, monotonic: () => time.nowMs }
  const store = options.store ?? openMemoryStore({ clock })
  const lifecycle: Lifecycle = { isDraining: false, inFlight: new InFlight(), startedAtMs: time.nowMs }
  const lines: string[] = []
  const app = createAdminApp({
    store,
    adminKeys: [ADMIN_KEY, SECOND_ADMIN_KEY],
    registry: testTelemetry().registry,
    log: captureLog(lines),
    clock,
    lifecycle,
    modelHealth: createModelHealth(),
    ledger: memoryLedger(),
    budgets: testTelemetry().budgets,
    exporters: testTelemetry().exporters,
    catalog: createCatalog('/no/such/folder/catalog.json'),
    ...options,
  })
  const call: Harness['call'] = async (method, path, body, headers = { authorization: `Bearer ${ADMIN_KEY}` }) => {
    const init: RequestInit = { method, headers: { ...headers } }
    if (body !== undefined) {
      init.body = typeof body === 'string' ? body : JSON.stringify(body)
      init.headers = { 'content-type': 'application/json', ...headers }
    }
    const response = await app.fetch(new Request(`http://127.0.0.1:3001${path}`, init))
    return await answerOf(response)
  }
  return { store, lifecycle, lines, call, fetch: request => app.fetch(request), clock: time }
}

export async function answerOf(response: Response): Promise<Answer> {
  const text = await response.text()
  const isJson = response.headers.get('content-type')?.startsWith('application/json') === true
  return { status: response.status, headers: response.headers, text, body: isJson && text !== '' ? JSON.parse(text) : undefined }
}

/** `error_msg` of an answer; fails where the answer is not the admin API's envelope and nothing else. */
export function messageOf({ body, text }: Answer): string {
  if (isRecord(body) && typeof body.error_msg === 'string' && Object.keys(body).length === 1) return body.error_msg
  throw new Error(`expected {"error_msg"}, got ${text}`)
}

/** The entry of a single-resource answer; fails where its members are not exactly `id`, `value` and `revision`. */
export function entryOf({ status, body, text }: Answer): { id: string; value: Record<string, unknown>; revision: number } {
  if (status === 200 && isRecord(body) && Object.keys(body).sort().join() === 'id,revision,value') {
    const { id, value, revision } = body
    if (typeof id === 'string' && isRecord(value) && typeof revision === 'number') return { id, value, revision }
  }
  throw new Error(`expected an entry, got ${status} ${text}`)
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export const providerKey = (more: Record<string, unknown> = {}) => ({
  display_name: 'vllm-private',
  provider: 'vllm',
  adapter: 'openai',
  secret: 'sk-upstream-secret',
  api_base: 'http://10.0.0.5:8000/v1',
  ...more,
})

export const model = (provider_key_id: string, more: Record<string, unknown> = {}) => ({
  display_name: 'llama-3-private',
  provider: 'vllm',
  model_name: 'meta-llama/Llama-3.1-8B-Instruct',
  provider_key_id,
  ...more,
})

/** A model group of these targets. */
export const group = (targets: (string | Record<string, unknown>)[], more: Record<string, unknown> = {}) => ({
  display_name: 'llama-3',
  routing: { targets: targets.map(target => (typeof target === 'string' ? { model: target } : target)) },
  ...more,
})

export const budget = (more: Record<string, unknown> = {}) => ({
  name: 'search team',
  scope: 'team',
  scope_ref: 'search',
  limit_usd: 250,
  period: 'month',
  ...more,
})

/** A rate-limit policy of the conditional form. */
export const policy = (more: Record<string, unknown> = {}) => ({ name: 'fair share', limits: { rpm: 60 }, ...more })

/** A rate-limit policy of the classic form. */
export const classicPolicy = (more: Record<string, unknown> = {}) => ({
  name: 'search team',
  scope: 'team',
  scope_ref: 'search',
  window: 'minute',
  max_requests: 600,
  ...more,
})

/** An exporter of traces to a collector of this machine. */
export const otlpExporter = (more: Record<string, unknown> = {}) => ({
  name: 'collector',
  kind: 'otlp_http',
  endpoint: 'http://127.0.0.1:4318/v1/traces',
  ...more,
})

/** An exporter of objects to a store of this machine. */
export const s3Exporter = (more: Record<string, unknown> = {}) => ({
  name: 'usage to minio',
  kind: 'object_store',
  provider: 's3',
  bucket: 'aisix',
  prefix: 'usage',
  endpoint: 'http://127.0.0.1:9000',
  credential_ref: 'minio',
  ...more,
})

/** An exporter of objects to a folder. */
export const folderExporter = (more: Record<string, unknown> = {}) => ({
  name: 'usage files',
  kind: 'object_store',
  provider: 'file',
  endpoint: 'file:///var/log/aisix/usage',
  ...more,
})

/** A route that sends what comes below `/up` to a server of this machine. */
export const passthroughRoute = (more: Record<string, unknown> = {}) => ({
  name: 'up',
  path_prefix: '/up',
  target_url: 'http://127.0.0.1:8000/v1',
  provider_key_id: 'pk',
  ...more,
})

export const apiKey = (more: Record<string, unknown> = {}) => ({
  key_hash: sha256('sk-byo-caller'),
  allowed_models: ['*'],
  ...more,
})

export const sha256 = (text: string): string => new Bun.CryptoHasher('sha256').update(text).digest('hex')

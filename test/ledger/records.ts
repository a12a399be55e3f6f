import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Labels, NO_LABELS } from '../../src/exchange.ts'
import { BatchBuilder } from '../../src/ledger/batch.ts'
import type {
  LedgerStatus,
  RequestsAnswer,
  RequestsQuestion,
  StoredRecord,
  UsageAnswer,
  UsageQuestion,
} from '../../src/ledger/ledger.ts'
import type { FromWriter } from '../../src/ledger/messages.ts'
import { createReader } from '../../src/ledger/reader.ts'
import { createLedger, type LedgerOptions } from '../../src/ledger/sqlite-ledger.ts'
import { createWriter } from '../../src/ledger/writer.ts'
import { createLog } from '../../src/lib/log.ts'
import { metricFamilies } from '../../src/telemetry/families.ts'
import { Registry } from '../../src/telemetry/registry.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { plainRecord } from '../plain-record.ts'

export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000
/** A Monday, noon in UTC. */
export const NOON = Date.UTC(2026, 5, 1, 12)

export function labels(more: Partial<Labels> = {}): Labels {
  return {
    ...NO_LABELS,
    ...{ apiKeyId: 'key-1', teamId: 'team-1', userId: 'user-1', userName: 'Ada' },
    ...{ name: 'chat', modelId: 'model-1', model: 'chat', provider: 'vllm', upstreamModel: 'org/model' },
    ...{ providerKeyId: 'provider-key-1', providerKeyName: 'rack-1' },
    ...more,
  }
}

const SOME_LABELS = labels()

export function record(more: Partial<UsageRecord> = {}): UsageRecord {
  return plainRecord({
    labels: SOME_LABELS,
    requestId: crypto.randomUUID(),
    occurredAtMs: NOON,
    requestedModel: 'chat',
    promptTokens: 12,
    completionTokens: 3,
    upstreamMs: 100,
    downstreamMs: 101,
    totalMs: 102,
    costPico: 4_500_000,
    providerRequestId: 'chatcmpl-0123456789abcdef0123456789abcdef',
    providerModelVersion: 'org/model',
    clientIp: '10.0.0.7',
    userAgent: 'curl/8.5.0',
    ...more,
  })
}

export const failure = (status: number, more: Partial<UsageRecord> = {}) =>
  record({ status, errorClass: 'upstream_error', errorMessage: `the upstream answered ${status}`, ...more })

/** Waits until `holds`; a test that waits in vain ends by its own time limit. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(2)
}

/** A folder of its own for one test, with what was opened in it closed before it is removed. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'aisix-ledger-'))
  const closers: (() => unknown)[] = []
  const path = join(folder, 'usage.db')
  return {
    folder,
    path,
    closers,
    /** A ledger with threads of its own. */
    async open(options: Partial<LedgerOptions> = {}) {
      const lines: string[] = []
      const clock = { ms: NOON, now: () => clock.ms, monotonic: () => performance.now() }
      const sink = {
        isTerminal: false,
        write(text: string, done: () => void) {
          lines.push(text)
          done()
        },
      }
      const registry = new Registry(10_000, metricFamilies({}))
      const ledger = createLedger({
        path,
        retentionDays: 30,
        bytesMax: 1024 * 1024 * 1024,
        log: createLog({ filter: 'info', sink }),
        registry,
        clock,
        flushMs: 2,
        retryMs: 20,
        ...options,
      })
      closers.push(() => ledger.close())
      await ledger.opened
      return { ledger, clock, registry, lines, status: (): LedgerStatus => ledger.status }
    },
    /** The writer and the reader in the test's own thread, where every step is its own. */
    async openHere(options: { retentionDays?: number; bytesMax?: number; writerId?: string; path?: string } = {}) {
      const told: FromWriter[] = []
      const place = options.path ?? path
      const writer = createWriter(
        { path: place, writerId: 'writer-1', retentionDays: 30, bytesMax: 1024 * 1024 * 1024, retryMs: 10, ...options },
        message => told.push(message),
      )
      const reader = createReader(place)
      const builder = new BatchBuilder()
      let number = 0
      let isOpen = true
      const close = () => {
        if (!isOpen) return
        isOpen = false
        reader.close()
        writer.close(NOON)
      }
      closers.push(close)
      writer.start(NOON)
      return {
        told,
        writer,
        close,
        reader,
        lastReport: () => {
          const reports = told.flatMap(message => ('report' in message ? [message.report] : []))
          return reports.at(-1)
        },
        write(records: readonly UsageRecord[], nowMs = NOON, as = ++number) {
          for (const each of records) builder.add(each)
          writer.push(builder.take(as).batch, nowMs)
        },
        usage: (question: UsageQuestion) => reader.answer({ about: 'usage', question }) as UsageAnswer,
        requests: (question: Partial<RequestsQuestion>) =>
          reader.answer({ about: 'requests', question: { limit: 100, ...question } }) as RequestsAnswer,
        request: (requestId: string) => reader.answer({ about: 'request', requestId }) as StoredRecord[],
      }
    },
    async clean() {
      for (const close of closers.reverse()) await close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
export type Scratch = ReturnType<typeof scratch>

/** A ledger in memory that keeps the contract of src/ledger/ledger.ts, for tests of what asks it. */

import { NO_LABELS } from '../../src/exchange.ts'
import {
  LATENCY_BOUNDS_MS,
  type Ledger,
  type LedgerStatus,
  type RequestsQuestion,
  type StoredRecord,
  TTFT_BOUNDS_MS,
  type UsageAnswer,
  type UsageQuestion,
  type UsageRow,
} from '../../src/ledger/ledger.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { plainRecord } from '../plain-record.ts'

const HOUR_MS = 3_600_000

export type MemoryLedger = Ledger & {
  /** Questions that were asked, in their order. */
  asked: (UsageQuestion | RequestsQuestion)[]
  /** Thrown at the next questions. */
  failure: Error | undefined
}

export function memoryLedger(status: Partial<LedgerStatus> = {}): MemoryLedger {
  const stored: StoredRecord[] = []
  const ledger: MemoryLedger = {
    asked: [],
    failure: undefined,
    record(record) {
      stored.push({ seq: stored.length + 1, record })
      return true
    },
    async usage(question) {
      heard(question)
      return sum(
        stored.map(({ record }) => record),
        question,
      )
    },
    async requests(question) {
      heard(question)
      const { before = Number.POSITIVE_INFINITY, after, limit } = question
      const found = stored.filter(({ seq, record }) => seq < before && seq > (after ?? 0) && isMeant(record, question))
      if (after === undefined) found.reverse()
      const records = found.slice(0, limit)
      return { records, next: found.length > limit ? records.at(-1)?.seq : undefined, newest: stored.length }
    },
    async request(requestId) {
      heard()
      return stored.filter(({ record }) => record.requestId === requestId)
    },
    status: {
      ...{
        state: 'ok',
        isWriting: true,
        problem: undefined,
        queued: 0,
        written: 0,
        dropped: 0,
        bytes: 0,
        bytesMax: 0,
        oldestMs: undefined,
      },
      ...status,
    },
    async close() {},
  }
  const heard = (question?: UsageQuestion | RequestsQuestion) => {
    if (question) ledger.asked.push(question)
    if (ledger.failure) throw ledger.failure
  }
  return ledger
}

function isMeant({ status, labels, occurredAtMs }: UsageRecord, question: RequestsQuestion): boolean {
  const { status: wanted, failedOnly, modelIds, apiKeyIds, fromMs = 0, toMs = Number.POSITIVE_INFINITY } = question
  return (
    (wanted === undefined || wanted === status || wanted === classOf(status)) &&
    (!failedOnly || status >= 400) &&
    (modelIds?.includes(labels.modelId) ?? true) &&
    (apiKeyIds?.includes(labels.apiKeyId) ?? true) &&
    occurredAtMs >= fromMs &&
    occurredAtMs < toMs
  )
}

const classOf = (status: number) => `${Math.floor(status / 100)}xx`

function sum(records: readonly UsageRecord[], { fromMs, toMs, groupBy, filter }: UsageQuestion): UsageAnswer {
  const rows = new Map<string, UsageRow>()
  const names: UsageAnswer['names'] = { apiKey: {}, model: {}, providerKey: {}, team: {}, user: {} }
  for (const record of records) {
    const { labels, occurredAtMs: at, status } = record
    const passes = (ids: readonly string[] | undefined, id: string) => ids?.includes(id) ?? true
    if (at < fromMs || at >= toMs) continue
    if (!passes(filter.apiKeyIds, labels.apiKeyId) || !passes(filter.modelIds, labels.modelId)) continue
    if (!passes(filter.providerKeyIds, labels.providerKeyId) || !passes(filter.teamIds, labels.teamId)) continue
    if (!passes(filter.userIds, labels.userId) || !passes(filter.statusClasses, classOf(status))) continue
    const group: Partial<UsageRow> = {}
    for (const grouping of groupBy) {
      if (grouping === 'day') group.startMs = at - (at % (24 * HOUR_MS))
      if (grouping === 'hour') group.startMs = at - (at % HOUR_MS)
      if (grouping === 'api_key') group.apiKeyId = labels.apiKeyId
      if (grouping === 'model') group.modelId = labels.modelId
      if (grouping === 'provider_key') group.providerKeyId = labels.providerKeyId
      if (grouping === 'team') group.teamId = labels.teamId
      if (grouping === 'user') group.userId = labels.userId
    }
    names.model[labels.modelId] = labels.model
    names.providerKey[labels.providerKeyId] = labels.providerKeyName
    names.user[labels.userId] = labels.userName
    const key = JSON.stringify(group)
    const row = rows.get(key) ?? { ...group, ...emptyRow() }
    rows.set(key, row)
    row.attempts += 1
    row.promptTokens += record.promptTokens
    row.completionTokens += record.completionTokens
    row.cachedTokens += record.cachedTokens
    row.reasoningTokens += record.reasoningTokens
    row.costPico += BigInt(record.costPico)
    if (record.isEstimated) row.estimatedTokens += record.promptTokens + record.completionTokens
    if (!record.isTerminal) continue
    row.requests += 1
    if (status >= 400) row.failedRequests += 1
    if (record.isEstimated) row.estimatedRequests += 1
    if (!record.isPriced && record.promptTokens + record.completionTokens > 0) row.unpricedRequests += 1
    if (record.totalMs !== undefined) count(row.latencyCounts, LATENCY_BOUNDS_MS, record.totalMs)
    const { isStream, upstreamTtftMs, downstreamMs = upstreamTtftMs } = record
    if (isStream && upstreamTtftMs !== undefined) count(row.ttftCounts, TTFT_BOUNDS_MS, downstreamMs ?? 0)
  }
  return { rows: [...rows.values()], names }
}

function count(counts: number[], bounds: readonly number[], ms: number): void {
  const index = bounds.findIndex(bound => ms <= bound)
  const bucket = index < 0 ? bounds.length : index
  counts[bucket] = (counts[bucket] ?? 0) + 1
}

function emptyRow() {
  return {
    requests: 0,
    attempts: 0,
    failedRequests: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    estimatedRequests: 0,
    estimatedTokens: 0,
    costPico: 0n,
    unpricedRequests: 0,
    latencyCounts: new Array<number>(LATENCY_BOUNDS_MS.length + 1).fill(0),
    ttftCounts: new Array<number>(TTFT_BOUNDS_MS.length + 1).fill(0),
  }
}

/** A record of one successful request. */
export function usageRecord({
  labels = {},
  ...more
}: Partial<Omit<UsageRecord, 'labels'>> & { labels?: Partial<UsageRecord['labels']> } = {}): UsageRecord {
  return plainRecord({
    labels: { ...NO_LABELS, ...labels },
    occurredAtMs: Date.parse('2026-11-01T08:30:00Z'),
    requestedModel: 'llama-3-private',
    promptTokens: 10,
    completionTokens: 5,
    upstreamMs: 80,
    downstreamMs: 81,
    totalMs: 82,
    costPico: 1_500_000,
    clientIp: '10.0.3.17',
    ...more,
  })
}

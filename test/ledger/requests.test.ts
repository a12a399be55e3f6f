import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { RequestsQuestion } from '../../src/ledger/ledger.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { failure, HOUR_MS, labels, NOON, record, type Scratch, scratch } from './records.ts'

const RARE = labels({ apiKeyId: 'rare-key', modelId: 'rare-model', model: 'rare' })

describe('single requests', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  test('a record comes back with every member as it was, times in whole milliseconds', async () => {
    const ledger = await place.openHere()
    const full = record({
      traceId: '0af7651916cd43dd8448eb211c80319c',
      isStream: true,
      promptTokens: 3_000_000_000,
      cachedTokens: 7,
      reasoningTokens: 9,
      isEstimated: true,
      isPriced: false,
      upstreamTtftMs: 12,
      status: 502,
      costPico: 123_456_789_012_345,
      attemptIndex: 3,
      attemptKind: 'fallback',
      isTerminal: true,
      errorClass: 'upstream_error',
      errorMessage: 'ümlaut, "quotes" and a \u{1f680}',
      userAgent: 'agent/1.0 (ümlaut)',
      requestId: 'given-by-the-caller-ü',
    })
    const sparse = record({
      ...{ traceId: undefined, requestedModel: undefined, upstreamTtftMs: undefined, downstreamMs: undefined },
      ...{ totalMs: undefined, attemptKind: undefined, isTerminal: false, finishReason: undefined },
      ...{ providerRequestId: undefined, providerModelVersion: undefined, userAgent: undefined, clientIp: '' },
      labels: labels({ apiKeyId: '', teamId: '', userId: '', userName: '', isMember: true }),
    })
    ledger.write([full, sparse])
    const { records, newest } = ledger.requests({})
    expect(records).toEqual([
      { seq: 2, record: sparse },
      { seq: 1, record: full },
    ])
    expect(newest).toBe(2)
  })

  test('texts are cut to their bounds, never in the middle of a character', async () => {
    const ledger = await place.openHere()
    ledger.write([
      record({ userAgent: 'a'.repeat(255) + '\u{1f680}', errorMessage: 'm'.repeat(5_000), providerRequestId: 'p'.repeat(300) }),
    ])
    expect(ledger.requests({}).records[0]?.record).toMatchObject({
      userAgent: 'a'.repeat(255),
      errorMessage: 'm'.repeat(1_024),
      providerRequestId: 'p'.repeat(256),
    })
  })

  test('counts that are none are taken down as 0', async () => {
    const ledger = await place.openHere()
    ledger.write([record({ promptTokens: Number.NaN, completionTokens: -4, costPico: Number.POSITIVE_INFINITY })])
    expect(ledger.requests({}).records[0]?.record).toMatchObject({ promptTokens: 0, completionTokens: 0, costPico: 0 })
  })

  describe('by page', () => {
    const all: UsageRecord[] = Array.from({ length: 20_000 }, (_, index) => {
      const more = { occurredAtMs: NOON + index * 1_000, ...(index % 997 === 0 ? { labels: RARE } : {}) }
      return index % 50 === 0 ? failure(index % 100 === 0 ? 429 : 502, more) : record(more)
    })
    const cases: [name: string, question: Partial<RequestsQuestion>, keeps: (record: UsageRecord) => boolean][] = [
      ['all of them', { limit: 7_001 }, () => true],
      ['of a rare key', { apiKeyIds: ['rare-key'], limit: 7 }, ({ labels }) => labels.apiKeyId === 'rare-key'],
      ['of a common model', { modelIds: ['model-1', 'absent'], limit: 5_000 }, ({ labels }) => labels.modelId === 'model-1'],
      ['of a key at a model that it never asked', { apiKeyIds: ['rare-key'], modelIds: ['model-1'] }, () => false],
      ['failures', { failedOnly: true, limit: 90 }, ({ status }) => status >= 400],
      ['with an exact status', { status: 429, limit: 33 }, ({ status }) => status === 429],
      ['with an exact status as text', { status: '502' }, ({ status }) => status === 502],
      ['of a class', { status: '5xx' }, ({ status }) => status >= 500],
      ['of the class that all others have', { status: '2xx', limit: 10_000 }, ({ status }) => status === 200],
      ['with a status that none has', { status: 204 }, () => false],
      ['with a status that is none', { status: 'abc' }, () => false],
      ['failures of a rare key', { failedOnly: true, apiKeyIds: ['rare-key'] }, r => r.status >= 400 && r.labels === RARE],
      [
        'of some hours',
        { fromMs: NOON + HOUR_MS, toMs: NOON + 2 * HOUR_MS, limit: 1_000 },
        ({ occurredAtMs }) => occurredAtMs >= NOON + HOUR_MS && occurredAtMs < NOON + 2 * HOUR_MS,
      ],
      ['of a key that is unknown', { apiKeyIds: ['nobody'] }, () => false],
    ]
    for (const [name, question, keeps] of cases) {
      test(`${name}: backwards from the newest and forwards from the oldest, each once`, async () => {
        const ledger = await place.openHere()
        for (let from = 0; from < all.length; from += 1_500) ledger.write(all.slice(from, from + 1_500), NOON + 30_000_000)
        const wanted = all.filter(keeps).map(({ requestId }) => requestId)
        const backwards: string[] = []
        for (let before: number | undefined; ; ) {
          const page = ledger.requests({ ...question, ...(before === undefined ? {} : { before }) })
          backwards.push(...page.records.map(({ record }) => record.requestId))
          expect(page.records.length).toBeLessThanOrEqual(question.limit ?? 100)
          expect(page.newest).toBe(20_000)
          if (page.next === undefined) break
          before = page.next
        }
        expect(backwards).toEqual(wanted.toReversed())
        const forwards: string[] = []
        for (let after: number | undefined = 0; after !== undefined; ) {
          const page = ledger.requests({ ...question, after })
          forwards.push(...page.records.map(({ record }) => record.requestId))
          after = page.next
        }
        expect(forwards).toEqual(wanted)
      })
    }

    test('by its id, in a block, in the newest rows, and not at all', async () => {
      const ledger = await place.openHere()
      for (let from = 0; from < all.length; from += 1_500) ledger.write(all.slice(from, from + 1_500), NOON + 30_000_000)
      for (const index of [0, 1, 4_095, 4_096, 4_500, 12_345, 19_998, 19_999]) {
        const [found, ...others] = ledger.request(all[index]?.requestId ?? '')
        expect(found).toEqual({ seq: index + 1, record: all[index] ?? record() })
        expect(others).toEqual([])
      }
      expect(ledger.request(crypto.randomUUID())).toEqual([])
      expect(ledger.request('')).toEqual([])
    })

    test('a live tail gets what came after its cursor, oldest first', async () => {
      const ledger = await place.openHere()
      ledger.write(all.slice(0, 10))
      const { newest } = ledger.requests({ limit: 1 })
      expect(ledger.requests({ after: newest })).toEqual({ records: [], next: undefined, newest: 10 })
      ledger.write(all.slice(10, 15))
      const { records, next } = ledger.requests({ after: newest, limit: 3 })
      expect(records.map(({ seq }) => seq)).toEqual([11, 12, 13])
      expect(next).toBe(13)
      expect(ledger.requests({ after: 13, limit: 3 }).records.map(({ seq }) => seq)).toEqual([14, 15])
    })
  })

  test('the attempts of a request come in their order, wherever they lie', async () => {
    const ledger = await place.openHere()
    const requestId = crypto.randomUUID()
    const attempt = (attemptIndex: number) => failure(502, { requestId, attemptIndex, isTerminal: attemptIndex === 2 })
    ledger.write([attempt(0), ...Array.from({ length: 5_000 }, () => record()), attempt(1)])
    ledger.write([...Array.from({ length: 5_000 }, () => record()), attempt(2)])
    expect(ledger.request(requestId).map(({ record }) => record.attemptIndex)).toEqual([0, 1, 2])
  })

  test('a question that looks at very many rows in vain gives a short page and a cursor, and comes to its end', async () => {
    const ledger = await place.openHere()
    // Every block has rows of the key, and rows with the status, but none has a row with both.
    const batch = Array.from({ length: 20_000 }, (_, index) => (index % 1_000 === 0 ? failure(404, { labels: RARE }) : record()))
    for (let times = 0; times < 25; times++) ledger.write(batch)
    const question = { apiKeyIds: ['rare-key'], status: 200, limit: 10 }
    const pages: (number | undefined)[] = []
    for (let before: number | undefined; ; ) {
      const page = ledger.requests({ ...question, ...(before === undefined ? {} : { before }) })
      expect(page.records).toEqual([])
      pages.push(page.next)
      if (page.next === undefined) break
      before = page.next
    }
    expect(pages.length).toBe(2)
  })
})

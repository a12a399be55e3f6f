/** What the gateway tells of its requests, kept for tests to look at. */
import type { Budgets } from '../src/budgets/budget.ts'
import type { Exporters } from '../src/exporters/exporter.ts'
import type { Ledger } from '../src/ledger/ledger.ts'
import { metricFamilies } from '../src/telemetry/families.ts'
import { Registry } from '../src/telemetry/registry.ts'
import { createRequestMetrics } from '../src/telemetry/request-metrics.ts'
import type { RequestReport, UsageRecord } from '../src/telemetry/usage-record.ts'

export function testRegistry(seriesMax = 100_000): Registry {
  return new Registry(seriesMax, metricFamilies({}))
}

/** A registry, and whoever counts into it; records and reports are kept in lists, and no budget refuses anything. */
export function testTelemetry({ seriesMax = 100_000, wantsReports = false } = {}) {
  const registry = testRegistry(seriesMax)
  const records: UsageRecord[] = []
  const charged: { record: UsageRecord; groupId: string | undefined }[] = []
  const reports: RequestReport[] = []
  const ledger: Ledger = {
    record: record => records.push(record) > 0,
    usage: () => Promise.reject(new Error('tests ask the records')),
    requests: () => Promise.reject(new Error('tests ask the records')),
    request: async id => records.filter(({ requestId }) => requestId === id).map((record, seq) => ({ seq, record })),
    status: {
      state: 'ok',
      isWriting: true,
      problem: undefined,
      queued: 0,
      written: 0,
      dropped: 0,
      bytes: 0,
      bytesMax: 1,
      oldestMs: undefined,
    },
    close: async () => {},
  }
  const budgets: Budgets = {
    refusal: () => undefined,
    memberRefusal: () => undefined,
    reject: () => {},
    charge: (record, groupId) => charged.push({ record, groupId }),
    status: () => undefined,
    statuses: () => [],
    history: async () => undefined,
    collect: () => {},
    health: { state: 'ok', problem: undefined },
    flush: async () => true,
    close: async () => {},
  }
  const exporters: Exporters = {
    isActive: wantsReports,
    contentBytesMax: () => (wantsReports ? 1_000 : 0),
    wants: () => wantsReports,
    offer: report => reports.push(report),
    sync: () => {},
    close: async () => {},
    status: () => [],
  }
  return { registry, metrics: createRequestMetrics(registry, []), ledger, budgets, exporters, records, charged, reports }
}

import { describe, expect, test } from 'bun:test'
import { createLog } from '../../src/lib/log.ts'
import { checkResources } from '../../src/resources-file/check.ts'
import type { Loader, Loading } from '../../src/resources-file/loader.ts'
import type { Problem } from '../../src/resources-file/problem.ts'
import { configStatus } from '../../src/status/config.ts'
import { createConfigMetrics } from '../../src/status/metrics.ts'
import { openResourcesFile, ResourcesFileError } from '../../src/store/index.ts'
import { WritesRefused } from '../../src/store/store.ts'
import { actor, hashOf, model, testClock } from './documents.ts'

const PATH = '/etc/aisix/resources.yaml'

type Entry = Record<string, unknown>

const content = (more: Entry = {}) => ({
  _format_version: '1',
  provider_keys: [{ display_name: 'vllm', adapter: 'openai', secret: 'not-used' }],
  models: [{ display_name: 'llama', provider: 'vllm', model_name: 'org/llama', provider_key: 'vllm' }],
  api_keys: [{ display_name: 'app', key_hash: hashOf('sk-1'), allowed_models: ['llama'] }],
  ...more,
})

/** A loader whose file a test writes, and which waits at `gate` while there is one. */
function pretendFile() {
  const file = {
    content: content(),
    hash: 'a1',
    fault: undefined as Problem | undefined,
    crash: false,
    loads: 0,
    gate: undefined as Promise<void> | undefined,
  }
  const load: Loader = async () => {
    file.loads += 1
    const root = structuredClone(file.content)
    await file.gate
    if (file.crash) throw new Error('the thread that reads the resources file has ended: out of memory')
    if (file.fault) return { isRefused: true, problems: [file.fault], count: 1, hash: undefined }
    const { entries, problems } = checkResources(root, {})
    if (problems.length > 0) return { isRefused: true, problems, count: problems.length, hash: file.hash }
    const loading: Loading = {
      isRefused: false,
      hash: file.hash,
      warnings: [],
      next: async () => (entries.length === 0 ? undefined : entries.splice(0, 2)),
      end: () => undefined,
    }
    return loading
  }
  return { file, load }
}

async function open() {
  const { file, load } = pretendFile()
  const clock = testClock()
  const lines: string[] = []
  const write = (text: string, done: () => void) => {
    lines.push(text)
    done()
  }
  const log = createLog({ filter: 'info', sink: { isTerminal: false, write } })
  const store = await openResourcesFile({ path: PATH, env: {}, clock, log, load })
  return { file, store, clock, lines }
}

const metrics = (store: Awaited<ReturnType<typeof open>>['store']) => createConfigMetrics()(store.status)

describe('a file that is good', () => {
  test('is served as a whole, revision 1, found as requests look for it', async () => {
    const { store } = await open()
    const { snapshot } = store
    expect(snapshot.models.get('llama')).toMatchObject({ revision: 1, value: { model_name: 'org/llama' } })
    expect(snapshot.apiKeys.get(hashOf('sk-1'))?.allows('llama')).toBe(true)
    expect(store.list('provider_keys')).toMatchObject([{ revision: 1, value: { secret: 'not-used' } }])
    expect(snapshot.revision).toBe(1)
  })

  test('is told by the status as the contract has it', async () => {
    const { store } = await open()
    expect<unknown>(JSON.parse(JSON.stringify(configStatus(store)))).toEqual({
      state: 'synced',
      source: { type: 'file', source_hash: 'a1', observed_at: '2026-03-01T12:00:00Z' },
      applied: {
        config_hash: 'a1',
        apply_seq: 1,
        applied_at: '2026-03-01T12:00:00Z',
        resource_counts: { provider_keys: 1, models: 1, api_keys: 1 },
      },
      last_reload: { successful: true, at: '2026-03-01T12:00:00Z' },
      last_failure: null,
      rejected: [],
      partially_compatible: [],
    })
  })

  test('with nothing in it is empty, and ready', async () => {
    const { file, store } = await open()
    file.content = { ...content(), provider_keys: [], models: [], api_keys: [] }
    await store.reload()
    expect(configStatus(store).state).toBe('empty')
  })

  test('has no metrics of a connection or of revisions', async () => {
    const { store } = await open()
    const page = metrics(store)
    expect(page).toContain('aisix_config_last_reload_successful 1\n')
    expect(page).toContain('aisix_config_reloads_total 1\n')
    expect(page).toContain('aisix_config_hash_info{hash="a1"} 1\n')
    expect(page).not.toMatch(/aisix_config_(observed_revision|applied_revision|source_connected)/)
  })
})

describe('a reload', () => {
  test('takes over all of the file, the next generation on every entry', async () => {
    const { file, store } = await open()
    const before = store.snapshot
    file.content = content({
      models: [{ display_name: 'qwen', provider: 'vllm', model_name: 'q', provider_key: 'vllm' }],
      api_keys: [],
    })
    file.hash = 'b2'
    await store.reload()
    expect(store.list('models')).toMatchObject([{ revision: 2, value: { display_name: 'qwen' } }])
    expect(store.list('provider_keys')).toMatchObject([{ revision: 2 }])
    expect(store.snapshot.apiKeys.size).toBe(0)
    expect(store.status).toMatchObject({ applySeq: 2, configHash: 'b2', sourceHash: 'b2', reloads: 2 })
    // A request that is under way has what it began with.
    expect(before.models.get('llama')).toMatchObject({ revision: 1 })
    expect(before.apiKeys.size).toBe(1)
  })

  test('keeps documents that did not change, so that nothing made of them is made again', async () => {
    const { file, store } = await open()
    const [key, providerKey] = [store.snapshot.apiKeys.get(hashOf('sk-1')), store.list('provider_keys')[0]]
    file.content = content({ models: [] })
    file.content.api_keys = [{ display_name: 'app', key_hash: hashOf('sk-1'), allowed_models: ['*'] }]
    await store.reload()
    expect(store.list('provider_keys')[0]?.value).toBe(providerKey?.value)
    expect(store.snapshot.apiKeys.get(hashOf('sk-1'))?.allows('anything')).toBe(true)
    expect(key?.allows('anything')).toBe(false)
  })

  test('of a bad file leaves what was served, and says everywhere why', async () => {
    const { file, store, clock, lines } = await open()
    const before = store.snapshot
    file.content = content({
      models: [{ display_name: 'llama' }],
      api_keys: [{ display_name: 'app', key_env: 'MISSING', allowed_models: ['x'] }],
    })
    file.hash = 'bad'
    clock.ms += 60_000
    await store.reload()
    expect(store.snapshot).toBe(before)
    const status = configStatus(store)
    expect(status).toMatchObject({
      state: 'out_of_sync',
      source: { source_hash: 'bad' },
      applied: { config_hash: 'a1', apply_seq: 1 },
      last_reload: { successful: false, at: '2026-03-01T12:01:00Z' },
      last_failure: {
        last_error_kind: 'schema_failed',
        last_error: expect.stringContaining('models[0] ("llama"): field `provider`: is required'),
      },
      rejected: [
        { resource_kind: 'models', resource_id: 'llama', last_error_kind: 'schema_failed' },
        {
          resource_kind: 'api_keys',
          resource_id: 'app',
          last_error_kind: 'schema_failed',
          last_error: expect.stringContaining('`MISSING`'),
        },
        { resource_kind: 'api_keys', resource_id: 'app', last_error_kind: 'schema_failed' },
      ],
    })
    expect(metrics(store)).toContain('aisix_config_last_reload_successful 0\n')
    expect(metrics(store)).toContain('aisix_config_reload_failures_total{reason="validate"} 1\n')
    expect(metrics(store)).toContain('aisix_config_rejected_resources{kind="models"} 1\n')
    expect(store.status.problem).toContain(PATH)
    const warnings = lines.filter(line => line.includes('WARN'))
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain('3 error(s)')
  })

  test('that is good again returns to synced; the failure stays visible', async () => {
    const { file, store } = await open()
    file.content = content({ models: 5, api_keys: [] })
    await store.reload()
    expect(configStatus(store).rejected).toMatchObject([{ resource_kind: '', resource_id: '', last_error_kind: 'parse_failed' }])
    file.content = content()
    await store.reload()
    expect(configStatus(store)).toMatchObject({
      state: 'synced',
      rejected: [],
      last_failure: { last_error_kind: 'parse_failed' },
    })
    expect(store.status).toMatchObject({ applySeq: 2, reloads: 3, problem: undefined })
  })

  test.each<[string, Partial<ReturnType<typeof pretendFile>['file']>, string, string]>([
    ['a file that cannot be read', { fault: { scope: undefined, message: 'no such file', reason: 'fetch' } }, 'fetch', 'fetch'],
    ['a thread that ends', { crash: true }, 'fetch', 'fetch'],
    ['a text that is no YAML', { fault: { scope: undefined, message: 'line 1', reason: 'yaml' } }, 'parse', 'non_json'],
  ])('of %s is counted by its reason', async (_what, spoilt, reason, kind) => {
    const { file, store } = await open()
    Object.assign(file, spoilt)
    await store.reload()
    expect(metrics(store)).toContain(`aisix_config_reload_failures_total{reason="${reason}"} 1\n`)
    expect(configStatus(store)).toMatchObject({ state: 'out_of_sync', last_failure: { last_error_kind: kind } })
    if (kind === 'fetch') expect(store.status.lastFailure?.last_error).toBe('configuration source unreachable')
    expect(store.list('models')).toHaveLength(1)
  })

  test('that is asked for during another waits for it, and many become one', async () => {
    const { file, store } = await open()
    const gate = Promise.withResolvers<void>()
    file.gate = gate.promise
    const reloads = Array.from({ length: 50 }, () => store.reload())
    gate.resolve()
    await Promise.all(reloads)
    // The one at the start, the one that was under way, and one for all that came meanwhile.
    expect(file.loads).toBe(3)
  })

  test('that is asked for while one reads sees what was written in between', async () => {
    const { file, store } = await open()
    const gate = Promise.withResolvers<void>()
    file.gate = gate.promise
    const first = store.reload()
    file.content = content({ models: [], api_keys: [] })
    const second = store.reload()
    gate.resolve()
    await Promise.all([first, second])
    expect(file.loads).toBe(3)
    expect(store.list('models')).toEqual([])
  })
})

test('a bad file at the start is an error with the report', async () => {
  const { file, load } = pretendFile()
  file.content = content({ models: [{ display_name: 'a' }] })
  const log = createLog({ filter: 'off', sink: { isTerminal: false, write: (_text, done) => done() } })
  const opening = openResourcesFile({ path: PATH, env: {}, clock: testClock(), log, load })
  expect(opening).rejects.toThrow(ResourcesFileError)
  expect(opening).rejects.toThrow(`resources file ${PATH}: 2 error(s):\n  - models[0] ("a"): `)
})

test('no write is taken, in words that name the file and the signal', async () => {
  const { store } = await open()
  const [entry] = store.list('models')
  const attempts = [
    store.create('models', model('x'), actor),
    store.replace('models', entry?.id ?? '', now => now, actor),
    store.remove('models', entry?.id ?? '', actor),
  ]
  for (const attempt of attempts) {
    expect(attempt).rejects.toThrow(WritesRefused)
    expect(attempt).rejects.toThrow(
      `resources are file-managed: this gateway loads its resources from ${PATH}; edit that file and send SIGHUP`,
    )
  }
  expect(store.list('models')).toHaveLength(1)
})

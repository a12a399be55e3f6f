import { describe, expect, test } from 'bun:test'
import { checkResources, type FileEntry } from '../../src/resources-file/check.ts'
import {
  type Change,
  type ComparisonOptions,
  compare,
  documentOf,
  type StoredResource,
} from '../../src/resources-file/difference.ts'

type Collections = Record<string, Record<string, unknown>[]>

const H1 = '1'.repeat(64)
const H2 = '2'.repeat(64)
const server = { display_name: 'vllm', provider: 'vllm', secret: 'secret-of-vllm', api_base: 'http://10.0.0.5:8000/v1' }
const model = { display_name: 'llama', provider: 'vllm', model_name: 'org/llama', provider_key: 'vllm', timeout: 5000 }

function entriesOf(collections: Collections): FileEntry[] {
  const { entries, problems } = checkResources({ _format_version: '1', ...structuredClone(collections) }, {})
  expect(problems).toEqual([])
  return entries
}

let revision = 7
const stored = (kind: StoredResource['kind'], id: string, value: Record<string, unknown>): StoredResource => ({
  kind,
  id,
  value,
  revision: revision++,
})
const storedServer = stored('provider_keys', 'pk-1', { ...server, secret: '***' })
const storedModel = stored('models', 'm-1', {
  timeout: 5000,
  provider_key_id: 'pk-1',
  model_name: 'org/llama',
  provider: 'vllm',
  display_name: 'llama',
})

const compared = (collections: Collections, there: StoredResource[], options: Partial<ComparisonOptions> = {}) =>
  compare(entriesOf(collections), there, { writesSecrets: false, isHidden: () => false, shownName: name => name, ...options })
const told = (changes: Change[]) => changes.map(({ action, kind, name }) => `${action} ${kind} ${name}`)
const differencesOf = (change: Change | undefined) => (change?.action === 'update' ? change.differences : undefined)

describe('what is the same', () => {
  test('needs neither the order of members, nor defaults that are written out, nor equal ids', () => {
    const result = compared({ provider_keys: [server], models: [model] }, [storedServer, storedModel])
    expect(result).toMatchObject({ changes: [], sameCount: 2, uncomparedCount: 1, problems: [] })
  })

  test('a time in another zone and a hash in capitals are what the gateway makes of them', () => {
    const key = { display_name: 'app', key_hash: 'A'.repeat(64), allowed_models: [], expires_at: '2030-01-01T01:00:00+01:00' }
    const there = stored('api_keys', 'k-1', {
      display_name: 'app',
      key_hash: 'a'.repeat(64),
      allowed_models: [],
      expires_at: '2030-01-01T00:00:00.000Z',
    })
    expect(compared({ api_keys: [key] }, [there])).toMatchObject({ changes: [], sameCount: 1 })
  })

  test('a stored document that this version cannot judge is compared as it is', () => {
    const there = { ...storedModel, value: { ...storedModel.value, new_member: 1 } }
    const { changes } = compared({ provider_keys: [server], models: [model] }, [storedServer, there])
    expect(differencesOf(changes[0])).toEqual([{ path: 'new_member', before: 1, after: undefined }])
  })
})

describe('what differs', () => {
  test('is told member by member, absent ones included', () => {
    const cost = { input_per_1k: 1, output_per_1k: 2 }
    const there = { ...storedModel, value: { ...storedModel.value, timeout: 5, retries: 2, cost: { ...cost, input_per_1k: 0 } } }
    const { changes } = compared({ provider_keys: [server], models: [{ ...model, cost }] }, [storedServer, there])
    expect(told(changes)).toEqual(['update models llama'])
    expect(differencesOf(changes[0])).toEqual([
      { path: 'timeout', before: 5, after: 5000 },
      { path: 'retries', before: 2, after: undefined },
      { path: 'cost.input_per_1k', before: 0, after: 1 },
    ])
  })

  test('names what another id stands for', () => {
    const other = stored('provider_keys', 'pk-2', { ...server, display_name: 'old', secret: '***' })
    const there = { ...storedModel, value: { ...storedModel.value, provider_key_id: 'pk-2' } }
    const { changes } = compared({ provider_keys: [server], models: [model] }, [storedServer, other, there])
    expect(told(changes)).toEqual(['update models llama', 'delete provider_keys old'])
    expect(differencesOf(changes[0])).toEqual([{ path: 'provider_key', before: 'old', after: 'vllm' }])
  })

  test('a name where an id belongs does not pass for what is called so', () => {
    const there = { ...storedModel, value: { ...storedModel.value, provider_key_id: 'vllm' } }
    const { changes } = compared({ provider_keys: [server], models: [model] }, [storedServer, there])
    expect(differencesOf(changes[0])).toEqual([
      { path: 'provider_key', before: 'vllm (an id of no provider_keys)', after: 'vllm' },
    ])
  })

  test('references within conditions are compared by what they name', () => {
    const policy = (value: unknown) => ({
      name: 'p',
      limits: { rpm: 5 },
      conditions: [{ dimension: 'model', operator: 'in', value }],
    })
    const file = { provider_keys: [server], models: [model], rate_limit_policies: [policy(['llama'])] }
    const { changes: none } = compared(file, [storedServer, storedModel, stored('rate_limit_policies', 'p-1', policy(['m-1']))])
    expect(none).toEqual([])
    const { changes } = compared(file, [storedServer, storedModel, stored('rate_limit_policies', 'p-1', policy(['gone']))])
    expect(differencesOf(changes[0])).toEqual([
      { path: 'conditions[0].value', before: ['gone (an id of no models)'], after: ['llama'] },
    ])
  })

  test('two caller keys of one name are not the same key', () => {
    const key = (id: string, key_hash: string) => stored('api_keys', id, { display_name: 'app', key_hash, allowed_models: [] })
    const budget = { name: 'b', scope: 'api_key', limit_usd: 1, period: 'day' }
    const { changes } = compared(
      {
        api_keys: [{ display_name: 'app', key_hash: H1, allowed_models: [] }],
        budgets: [{ ...budget, scope_ref: 'app' }],
      },
      [key('k-1', H1), key('k-2', H2), stored('budgets', 'b-1', { ...budget, scope_ref: 'k-2' })],
    )
    expect(told(changes)).toEqual(['update budgets b', 'delete api_keys app'])
    expect(differencesOf(changes[0])).toEqual([{ path: 'scope_ref', before: 'app (k-2)', after: 'app (k-1)' }])
  })
})

describe('caller keys', () => {
  const file = { api_keys: [{ display_name: 'app', key_hash: H1, allowed_models: [] }] }
  const key = (id: string, display_name: string, key_hash: string) =>
    stored('api_keys', id, { display_name, key_hash, allowed_models: [] })

  test('are found by their hash, whatever they are called', () => {
    const { changes } = compared(file, [key('k-2', 'app', H2), key('k-1', 'former', H1)])
    expect(changes).toMatchObject([
      { action: 'update', stored: { id: 'k-1' }, differences: [{ path: 'display_name', before: 'former', after: 'app' }] },
      { action: 'delete', stored: { id: 'k-2' } },
    ])
  })

  test('are found by their name where the hash is another, which is not told', () => {
    const { changes } = compared(file, [key('k-2', 'app', H2)])
    expect(changes).toMatchObject([
      { action: 'update', stored: { id: 'k-2' }, differences: [{ path: 'key_hash', before: '***', after: '***' }] },
    ])
  })

  test('are refused where several could be meant', () => {
    const { problems } = compared(file, [key('k-2', 'app', H2), key('k-3', 'app', '3'.repeat(64))])
    expect(problems).toEqual([expect.stringContaining('api_keys "app": several of the gateway are called so')])
  })
})

describe('credentials', () => {
  const file = { provider_keys: [{ ...server, request: { default_headers: { 'x-org': 'org-secret' } } }] }

  test('are compared by whether they are there, and kept where they are', () => {
    const { changes, ids, uncomparedCount } = compared(file, [storedServer])
    expect(uncomparedCount).toBe(1)
    expect(JSON.stringify(differencesOf(changes[0]))).not.toContain('org-secret')
    const [change] = changes
    if (change?.action !== 'update') throw new Error('it is no update')
    expect(documentOf(change, ids, { writesSecrets: false })).toMatchObject({
      secret: '***',
      request: { default_headers: { 'x-org': 'org-secret' } },
    })
    expect(documentOf(change, ids, { writesSecrets: true })).toMatchObject({ secret: 'secret-of-vllm' })
  })

  test('are a difference of their own where they are to be written', () => {
    const { changes } = compared({ provider_keys: [server] }, [storedServer], { writesSecrets: true })
    expect(differencesOf(changes[0])).toEqual([{ path: 'secret', before: '***', after: '***' }])
  })

  test('what is added to bodies is not told either', () => {
    const withToken = (token: string) => ({ ...server, request: { default_body_fields: { token, n: 1 } } })
    const { changes } = compared({ provider_keys: [withToken('body-token-1')] }, [
      stored('provider_keys', 'pk-1', { ...withToken('body-token-0'), secret: '***' }),
    ])
    expect(differencesOf(changes[0])).toEqual([{ path: 'request.default_body_fields.token', before: '***', after: '***' }])
  })

  test('what came from a variable is told on neither side', () => {
    const there = stored('provider_keys', 'pk-1', { ...server, secret: '***', api_base: 'http://former:1/v1' })
    const { changes } = compared({ provider_keys: [server] }, [there], { isHidden: text => text.includes('10.0.0.5') })
    expect(differencesOf(changes[0])).toEqual([{ path: 'api_base', before: '***', after: '***' }])
  })
})

test('what others name is made first and deleted last, whatever the order of the file', () => {
  const all: Collections = {
    budgets: [{ name: 'b', scope: 'api_key', scope_ref: 'app', limit_usd: 1, period: 'day' }],
    passthrough_routes: [
      {
        name: 'open',
        path_prefix: '/open',
        target_url: 'http://10.0.0.5:8000',
        source_cidrs: ['10.0.0.0/8'],
        auth_mode: 'anonymous',
        anonymous_key: 'app',
        credential_mode: 'inject',
        provider_key: 'vllm',
      },
      {
        name: 'plain',
        path_prefix: '/plain',
        target_url: 'http://10.0.0.5:8000',
        auth_mode: 'gateway_key',
        credential_mode: 'inject',
        provider_key: 'vllm',
      },
    ],
    api_keys: [{ display_name: 'app', key_hash: H1, allowed_models: ['llama'], allowed_routes: ['plain'] }],
    models: [{ display_name: 'group', routing: { targets: [{ model: 'llama' }] } }, model],
    rate_limit_policies: [{ name: 'p', scope: 'model', scope_ref: 'llama', window: 'minute', max_requests: 1 }],
    provider_keys: [server],
  }
  const order = [
    'provider_keys vllm',
    'models llama',
    'models group',
    'passthrough_routes plain',
    'api_keys app',
    'passthrough_routes open',
    'rate_limit_policies p',
    'budgets b',
  ]
  const { changes, ids } = compared(all, [])
  expect(told(changes)).toEqual(order.map(each => `create ${each}`))
  // Ids are those of the gateway as soon as it has given them out.
  const [first, second] = changes
  if (first?.action !== 'create' || second?.action !== 'create') throw new Error('nothing is created')
  ids.set('provider_keys', first.entry.id, 'real-id')
  expect(documentOf(second, ids, { writesSecrets: false })).toMatchObject({ provider_key_id: 'real-id' })

  const there = entriesOf(all).map(({ kind, id, value }) => stored(kind, id, { ...value }))
  expect(told(compared({}, there).changes)).toEqual(order.toReversed().map(each => `delete ${each}`))
})

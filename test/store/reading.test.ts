import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { createTable } from '../../src/store/table.ts'
import { apiKey, group, hashOf, model, policy, providerKey, SECRET, testClock } from './documents.ts'

/** What becomes of rows that other programs have written: each load is one list of them. */
describe('reading stored rows', () => {
  let clock: ReturnType<typeof testClock>
  let table: ReturnType<typeof createTable>
  let revision = 0

  beforeEach(() => {
    clock = testClock()
    table = createTable(clock)
    revision = 0
  })
  const row = (kind: unknown, id: unknown, document: unknown, rowRevision: unknown = 1) => {
    return { kind, id, document: typeof document === 'object' ? JSON.stringify(document) : document, revision: rowRevision }
  }
  const load = (...rows: ReturnType<typeof row>[]) => {
    revision += 1
    table.load(revision, rows)
  }
  const status = () => table.status({ connected: true, problem: undefined, confirmedAt: clock.ms })
  const aliases = () => [...table.snapshot.models.keys()]

  afterEach(() => {
    // Whatever was loaded: no credential is ever told.
    const told = JSON.stringify(status())
    expect(told).not.toContain(SECRET)
    expect(told).not.toContain(hashOf('sk-one'))
  })

  test('unknown members are left out at any depth and counted per kind and field', () => {
    load(
      row('provider_keys', 'k1', { ...providerKey('one'), shiny: 1, request: { sparkle: true, default_headers: { a: 'b' } } }),
      row('provider_keys', 'k2', { ...providerKey('two'), shiny: { deep: SECRET } }),
      row('models', 'm1', { ...model('m'), cost: { input_per_1k: 1, output_per_1k: 2, per_image: 3 } }),
    )
    expect(status().partiallyCompatible).toEqual([
      { resource_kind: 'provider_keys', field: 'request.sparkle', count: 1 },
      { resource_kind: 'provider_keys', field: 'shiny', count: 2 },
      { resource_kind: 'models', field: 'cost.per_image', count: 1 },
    ])
    expect(status().rejected).toEqual([])
    expect(table.get('provider_keys', 'k1')?.value).toEqual(providerKey('one', { request: { default_headers: { a: 'b' } } }))
    expect(table.get('models', 'm1')?.value).toEqual(model('m', { cost: { input_per_1k: 1, output_per_1k: 2 } }))
  })

  test('fields that are no longer stored are no longer counted', () => {
    load(row('models', 'm1', { ...model('m'), shiny: 1 }))
    load(row('models', 'm1', model('m')))
    expect(status().partiallyCompatible).toEqual([])
  })

  test('a document in the spelling of another writer is normalised: api_key is the secret, defaults are filled in', () => {
    load(row('provider_keys', 'k1', { display_name: 'one', api_key: SECRET, strip_headers: [' Cookie ', 'COOKIE'] }))
    const { value } = table.get('provider_keys', 'k1') ?? {}
    expect(value).toMatchObject({ secret: SECRET, provider: '', strip_headers: ['cookie'] })
    expect(value).not.toHaveProperty('api_key')
  })

  test.each([
    ['not JSON', `{"display_name": ${SECRET}`, 'non_json', 'the document is not JSON text in UTF-8'],
    ['bytes that are not UTF-8', new Uint8Array([0x7b, 0xff, 0x7d]), 'non_json', 'the document is not JSON text in UTF-8'],
    ['no text at all', null, 'non_json', 'the document is not JSON text in UTF-8'],
    ['a number', 42, 'non_json', 'the document is not JSON text in UTF-8'],
    ['JSON but no object', `["${SECRET}"]`, 'parse_failed', 'the document is not a JSON object'],
    [
      'a wrong type',
      JSON.stringify({ ...model('m'), retries: SECRET }),
      'schema_failed',
      'retries: must be a number, not a string',
    ],
    ['incomplete', '{"display_name":"m","provider":"vllm","model_name":"x"}', 'schema_failed', 'provider_key_id: is required'],
    ['several faults', '{}', 'schema_failed', '; and 1 more'],
  ])('a document that is %s is rejected, the place and the rule named', (_what, document, kind, error) => {
    table.load(1, [{ kind: 'models', id: 'bad', document, revision: 1 }, row('models', 'good', model('good'))])
    expect(aliases()).toEqual(['good'])
    expect(status().rejected).toEqual([
      {
        resource_kind: 'models',
        resource_id: 'bad',
        last_error_kind: kind as 'non_json',
        last_error: expect.stringContaining(error),
        first_seen_at: '2026-03-01T12:00:00Z',
        last_seen_at: '2026-03-01T12:00:00Z',
      },
    ])
  })

  test.each(['ensemble', 'semantic'])('a %s model is told to be one, and not what a direct model needs', member => {
    load(row('models', 'm1', { display_name: 'm', [member]: { targets: [] } }))
    expect(status().rejected).toMatchObject([
      { last_error: `${member} models are not supported by this version: leave out \`${member}\`` },
    ])
    load(row('models', 'm1', { display_name: 5, [member]: { targets: [] }, retries: null }))
    expect(status().rejected).toMatchObject([
      { last_error: expect.stringMatching(/; display_name: must be a string, not a number$/) },
    ])
  })

  test('a row that cannot be served hears of members that this version does not have; one that can is served without them', () => {
    load(row('models', 'm1', { display_name: 'm', embedding: { dimensions: 1 }, auto_prompt_caching: null }))
    expect(status().rejected[0]?.last_error).toStartWith(
      '`embedding` is not supported by this version: leave it out; provider: is required; ',
    )
    load(row('models', 'm1', { ...model('m'), embedding: { dimensions: 1 }, ensemble: null, routing: null }))
    expect(aliases()).toEqual(['m'])
    expect(status()).toMatchObject({ rejected: [], partiallyCompatible: [{ field: 'embedding', count: 1 }] })
  })

  test('a group is served without the knobs that only direct models have, and they are counted', () => {
    const stored = group('g', ['a', 'b'], { timeout: 5 })
    load(row('models', 'g', { ...stored, retries: -1, cooldown: {}, cost: 'much', embedding: {}, background_model_check: null }))
    expect(table.get('models', 'g')?.value).toEqual(stored)
    expect(aliases()).toEqual(['g'])
    expect(status()).toMatchObject({
      rejected: [],
      partiallyCompatible: ['cooldown', 'cost', 'embedding', 'retries'].map(field => ({ field, count: 1 })),
    })
  })

  test('a row of two forms is rejected, because nobody knows which was meant', () => {
    load(
      row('models', 'm1', { ...group('g', ['a']), provider: 'vllm' }),
      row('rate_limit_policies', 'p1', { ...policy('p'), scope: 'team', scope_ref: 't', window: 'day', max_requests: 1 }),
    )
    expect(status().rejected.map(({ last_error }) => last_error)).toEqual([
      '`provider` belongs to a direct model and `routing` to a model group: leave out one of the two',
      expect.stringMatching(/the two forms of a policy exclude each other: leave out either `scope`, .* or `limits` of/),
    ])
    expect(status().partiallyCompatible).toEqual([])
  })

  test('unknown members inside targets, conditions and schedules are left out and counted by place', () => {
    const comparison = { dimension: 'team', operator: '==', value: 't' }
    const conditions = [comparison, { logic: 'or', children: [comparison, { logic: 'and', children: [comparison] }] }]
    const schedules = [{ timezone: 'UTC', days_of_week: ['mon'], start_time: '00:00', end_time: '24:00' }]
    const known = policy('p', { limits: { rpm: 1 }, conditions, schedules })
    load(
      row('rate_limit_policies', 'p1', {
        ...known,
        limits: { rpm: 1, tps: 5 },
        conditions: [
          { ...comparison, shiny: 1 },
          { logic: 'or', sparkle: 1, children: [comparison, { logic: 'and', children: [{ ...comparison, shiny: 2 }] }] },
        ],
        schedules: [{ ...schedules[0], note: SECRET }],
      }),
      row('models', 'g', { ...group('g', ['a']), routing: { targets: [{ model: 'a', region: 'eu' }], mirror: 'b' } }),
    )
    expect(status().rejected).toEqual([])
    expect(table.get('rate_limit_policies', 'p1')?.value).toEqual(known)
    expect(table.get('models', 'g')?.value).toEqual(group('g', ['a']))
    expect(status().partiallyCompatible.map(({ field }) => field)).toEqual([
      'routing.mirror',
      'routing.targets[].region',
      'conditions[].children[].children[].shiny',
      'conditions[].shiny',
      'conditions[].sparkle',
      'limits.tps',
      'schedules[].note',
    ])
  })

  test.each([
    [
      'a pattern',
      { conditions: [{ dimension: 'provider', operator: '~~', value: '(' }] },
      'conditions[].value: is no regular expression',
    ],
    [
      'a zone',
      { schedules: [{ timezone: 'Mars/Phobos', dates: ['2030-01-01'], start_time: '00:00', end_time: '01:00' }] },
      'schedules[].timezone: must be a time zone',
    ],
    [
      'an operator',
      { conditions: [{ logic: 'or', children: [{ dimension: 'team', operator: 'has', value: 'x' }] }] },
      'conditions[].children[].operator: `has` is reserved',
    ],
  ])('a policy with %s that cannot be used is rejected, and its last good version goes on', (_what, more, error) => {
    load(row('rate_limit_policies', 'p1', policy('p')))
    load(row('rate_limit_policies', 'p1', { name: 'p', limits: { rpm: 2 }, ...more }, 2))
    expect(status().rejected).toMatchObject([
      { resource_kind: 'rate_limit_policies', last_error: expect.stringContaining(error) },
    ])
    expect(table.get('rate_limit_policies', 'p1')?.value).toEqual(policy('p'))
  })

  test('a document nested beyond all measure is rejected and takes nothing down', () => {
    const deep = '{"a":'.repeat(200_000) + '1' + '}'.repeat(200_000)
    const document = `{"display_name":"k","secret":"s","request":{"default_body_fields":{"x":${deep}}}}`
    load(row('provider_keys', 'deep', document), row('models', 'm1', model('m')))
    expect(status().rejected).toMatchObject([{ resource_id: 'deep' }])
    expect(aliases()).toEqual(['m'])
  })

  test('a document in a blob of UTF-8 is served', () => {
    table.load(1, [{ kind: 'models', id: 'm1', document: new TextEncoder().encode(JSON.stringify(model('blob'))), revision: 4 }])
    expect(table.get('models', 'm1')).toEqual({ id: 'm1', value: model('blob'), revision: 4 })
  })

  test.each([[0], [-3], [1.5], ['7'], [null], [2 ** 60]])('the revision %p of another writer counts as 1', given => {
    load(row('models', 'm1', model('m'), given))
    expect(table.get('models', 'm1')?.revision).toBe(1)
  })

  test('rows of an unknown kind or without a usable key are reported, and nothing else suffers', () => {
    load(
      row('teapots', 't1', {}),
      row('models', '', model('x')),
      row(null, 'y', {}),
      row('toString', 'z', {}),
      row('models', 'm', model('m')),
    )
    expect(status().rejected.map(each => [each.resource_kind, each.resource_id, each.last_error_kind])).toEqual([
      ['teapots', 't1', 'unknown_kind'],
      ['models', '', 'bad_key'],
      ['', 'y', 'bad_key'],
      ['toString', 'z', 'unknown_kind'],
    ])
    expect(aliases()).toEqual(['m'])
  })

  test('control characters in names of rows and fields are escaped', () => {
    load(row('tea\npots', 'id\u001b[2J', {}), row('models', 'm1', { ...model('m'), 'new\nline': 1 }))
    expect(status().rejected).toMatchObject([{ resource_kind: 'tea\\u000apots', resource_id: 'id\\u001b[2J' }])
    expect(status().partiallyCompatible).toMatchObject([{ field: 'new\\u000aline' }])
  })

  test('the last good version of a row goes on serving, its age is told, and a repair ends both', () => {
    load(row('models', 'm1', model('m', { retries: 1 })), row('models', 'm2', model('other')))
    clock.ms += 10_000
    load(row('models', 'm1', { display_name: 'm' }, 2), row('models', 'm2', model('other')))
    clock.ms += 5_100
    expect(table.get('models', 'm1')).toEqual({ id: 'm1', value: model('m', { retries: 1 }), revision: 1 })
    expect(aliases()).toEqual(['m', 'other'])
    expect(status().rejected).toMatchObject([
      {
        resource_id: 'm1',
        first_seen_at: '2026-03-01T12:00:10Z',
        serving_stale_since: '2026-03-01T12:00:10Z',
        serving_stale_age_seconds: 5,
      },
    ])

    load(row('models', 'm1', 'still broken', 3), row('models', 'm2', model('other')))
    expect(table.get('models', 'm1')).toMatchObject({ value: { retries: 1 } })
    expect(status().rejected).toMatchObject([
      { last_error_kind: 'non_json', first_seen_at: '2026-03-01T12:00:10Z', last_seen_at: '2026-03-01T12:00:15Z' },
    ])

    load(row('models', 'm1', model('m', { retries: 2 }), 4), row('models', 'm2', model('other')))
    expect(table.get('models', 'm1')).toMatchObject({ revision: 4, value: { retries: 2 } })
    expect(status().rejected).toEqual([])
  })

  test('a removed row does not live on as a last good version', () => {
    load(row('models', 'm1', model('m')))
    load(row('models', 'm1', 'broken'))
    load()
    expect(table.list('models')).toEqual([])
    expect(status().rejected).toEqual([])
    load(row('models', 'm1', 'broken'))
    expect(table.list('models')).toEqual([])
  })

  test('of two rows with one name the first serves; the other takes over when the first is renamed or removed', () => {
    const first = row('models', 'm1', model('same'))
    const second = row('models', 'm2', model('same', { retries: 9 }))
    load(first, second)
    expect(table.list('models').map(({ id }) => id)).toEqual(['m1'])
    expect(status().rejected).toMatchObject([
      { resource_id: 'm2', last_error_kind: 'schema_failed', last_error: 'display_name: name already in use by an older row' },
    ])
    const renamed = table.draft('models', 'm1', model('renamed'), 2)
    table.put(renamed, 2)
    expect(aliases()).toEqual(['renamed', 'same'])
    expect(status().rejected).toEqual([])

    load(first, second)
    table.remove('models', 'm1', 9)
    expect(table.snapshot.models.get('same')?.id).toBe('m2')
  })

  test('two rows of one key hash: the hash is not told', () => {
    load(row('api_keys', 'a1', apiKey('sk-one')), row('api_keys', 'a2', apiKey('sk-one', { disabled: true })))
    expect(table.snapshot.apiKeys.get(hashOf('sk-one'))?.entry.id).toBe('a1')
    expect(status().rejected).toMatchObject([{ resource_id: 'a2', last_error: 'key_hash: name already in use by an older row' }])
  })

  test('two rows may swap their names in one change', () => {
    load(row('models', 'm1', model('a')), row('models', 'm2', model('b')))
    load(row('models', 'm1', model('b'), 2), row('models', 'm2', model('a'), 2))
    expect(table.snapshot.models.get('a')?.id).toBe('m2')
    expect(table.snapshot.models.get('b')?.id).toBe('m1')
    expect(status().rejected).toEqual([])
  })

  test('a version that is only the last good one gives its name up to a row that is good today', () => {
    load(row('models', 'm1', model('wanted')))
    load(row('models', 'm1', 'broken'), row('models', 'm2', model('wanted', { retries: 7 })))
    expect(table.snapshot.models.get('wanted')?.id).toBe('m2')
    expect(table.get('models', 'm1')).toBeUndefined()
    expect(status().rejected[0]).not.toHaveProperty('serving_stale_since')
    load(row('models', 'm1', 'broken'), row('models', 'm2', model('else')))
    expect(table.snapshot.models.get('wanted')?.id).toBe('m1')
  })

  test('a name that only a stale version holds is still taken for writes', () => {
    load(row('models', 'm1', model('held')))
    load(row('models', 'm1', 'broken'))
    expect(() => table.draft('models', 'm2', model('held'), 1)).toThrow('already in use')
  })

  test('a load that changes nothing keeps the snapshot, the sequence and the hash', () => {
    load(row('models', 'm1', model('m')))
    const { snapshot } = table
    const before = status()
    table.load(1, [row('models', 'm1', model('m'))])
    expect(table.snapshot).toBe(snapshot)
    expect(status()).toEqual({ ...before, reloads: 2 })
  })

  test('a change that cannot be served moves the revision, but is not counted as applied', () => {
    load(row('models', 'm1', model('m')))
    clock.ms += 1000
    load(row('models', 'm1', 'broken'))
    expect(status()).toMatchObject({
      appliedRevision: 2,
      applySeq: 1,
      appliedAt: '2026-03-01T12:00:00Z',
      observedAt: '2026-03-01T12:00:01Z',
    })
  })

  test('a counter that went back, as after a restore, does not take the snapshot back', () => {
    table.load(50, [row('models', 'm1', model('m'))])
    table.load(3, [row('models', 'm1', model('restored'))])
    expect(table.snapshot.revision).toBe(51)
    expect(aliases()).toEqual(['restored'])
  })

  test('the hash tells content from content: not order, not revisions, not unknown members', () => {
    const rows = [row('models', 'm1', model('a')), row('models', 'm2', model('b'))]
    load(...rows)
    const { configHash } = status()
    load(...rows.toReversed())
    expect(table.list('models').map(({ id }) => id)).toEqual(['m2', 'm1'])
    expect(status().configHash).toBe(configHash)
    load(row('models', 'm1', { ...model('a'), shiny: 1 }, 8), row('models', 'm2', model('b')))
    expect(status().configHash).toBe(configHash)
    load(row('models', 'm2', model('a')), row('models', 'm1', model('b')))
    expect(status().configHash).not.toBe(configHash)
  })

  test('loads and failures are counted: one failure per reason, the last one stays after a success', () => {
    load(row('models', 'm1', 'broken'), row('models', 'm2', '{}'), row('models', 'm3', 'broken too'))
    expect(status()).toMatchObject({ reloads: 1, reloadFailures: { parse: 1, validate: 1 }, lastReloadSuccessAt: undefined })
    expect(status().lastReload).toEqual({ successful: false, at: '2026-03-01T12:00:00Z' })
    clock.ms += 1000
    table.loadFailed()
    expect(status().lastFailure).toEqual({
      at: '2026-03-01T12:00:01Z',
      last_error_kind: 'fetch',
      last_error: 'configuration source unreachable',
    })
    clock.ms += 1000
    load()
    expect(status()).toMatchObject({ reloads: 3, reloadFailures: { parse: 1, validate: 1, fetch: 1 } })
    expect(status()).toMatchObject({ lastReload: { successful: true }, lastReloadSuccessAt: clock.ms })
    expect(status().lastFailure).toMatchObject({ at: '2026-03-01T12:00:01Z', last_error_kind: 'fetch' })
  })
})

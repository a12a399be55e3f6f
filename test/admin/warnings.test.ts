import { describe, expect, test } from 'bun:test'
import { warningHeader } from '../../src/admin/warnings.ts'
import {
  type Answer,
  apiKey,
  budget,
  classicPolicy,
  entryOf,
  folderExporter,
  group,
  type Harness,
  isRecord,
  model,
  openAdmin,
  otlpExporter,
  passthroughRoute,
  policy,
  providerKey,
  s3Exporter,
  sha256,
} from './harness.ts'

const HEADER = 'x-aisix-warning'

function warningOf(answer: Answer): string | null {
  expect(answer.status).toBe(200)
  return answer.headers.get(HEADER)
}

describe('references', () => {
  test('a model whose provider key does not exist is accepted, and the header names it', async () => {
    const answer = await openAdmin().call('POST', '/admin/v1/models', model('pk-missing'))
    expect(warningOf(answer)).toContain('provider_key_id "pk-missing" names no provider key')
  })

  test('allowed models that do not exist are named; patterns and names that a pattern serves are not', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    await admin.call('POST', '/admin/v1/models', model(key.id))
    await admin.call('POST', '/admin/v1/models', model(key.id, { display_name: 'vllm/*', model_name: '*' }))
    const good = apiKey({ allowed_models: ['llama-3-private', 'vllm/any', '*', 'gpt-*'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', good))).toBeNull()
    const bad = apiKey({ key_hash: sha256('b'), allowed_models: ['llama-3-private', 'first', 'second'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', bad))).toBe(
      'allowed_models names "first", and there is no such model yet; allowed_models names "second", and there is no such model yet',
    )
  })

  test('a key that may use nothing, and an entry with two asterisks, are pointed out', async () => {
    const admin = openAdmin()
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_models: [] })))).toContain('may use no model')
    const two = apiKey({ key_hash: sha256('two'), allowed_models: ['a*b*'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', two))).toContain('"a*b*" has more than one *')
  })

  test('deleting a provider key in use succeeds and names the models that need it', async () => {
    const admin = openAdmin()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    await admin.call('POST', '/admin/v1/models', model(id))
    const answer = await admin.call('DELETE', `/admin/v1/provider_keys/${id}`)
    expect(warningOf(answer)).toBe(`models "llama-3-private" still names "${id}" in provider_key_id`)
    expect(answer.body).toEqual({ deleted: true, id })
  })

  test('renaming or deleting a model names the keys that still allow the old name', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', model(key.id)))
    await admin.call('POST', '/admin/v1/apikeys', apiKey({ display_name: 'ci', allowed_models: ['llama-3-private'] }))
    const same = await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id, { retries: 1 }))
    expect(warningOf(same)).toBeNull()
    const renamed = await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id, { display_name: 'llama' }))
    expect(warningOf(renamed)).toBe('api_keys "ci" still names "llama-3-private" in allowed_models')
    await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id))
    expect(warningOf(await admin.call('DELETE', `/admin/v1/models/${id}`))).toContain('still names "llama-3-private"')
  })

  test('what dangles is listed by health, and no longer once it is there', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const bad = entryOf(await admin.call('POST', '/admin/v1/models', model('pk-missing')))
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_models: ['later'] })))
    const dangling = async () => {
      const { body } = await admin.call('GET', '/admin/v1/health')
      return isRecord(body) ? body.dangling : undefined
    }
    expect(await dangling()).toEqual([
      { kind: 'models', id: bad.id, name: 'llama-3-private', field: 'provider_key_id', missing: 'pk-missing' },
      { kind: 'api_keys', id: caller.id, field: 'allowed_models', missing: 'later' },
    ])
    await admin.call('PUT', `/admin/v1/models/${bad.id}`, model(key.id, { display_name: 'later' }))
    expect(await dangling()).toEqual([])
  })
})

/** A gateway with a provider key, and direct models of these aliases. */
async function withModels(...aliases: string[]): Promise<{ admin: Harness; key: string; ids: string[] }> {
  const admin = openAdmin()
  const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey())).id
  const ids: string[] = []
  for (const display_name of aliases) {
    ids.push(entryOf(await admin.call('POST', '/admin/v1/models', model(key, { display_name }))).id)
  }
  return { admin, key, ids }
}

describe('references of model groups', () => {
  test('targets that are direct models are not mentioned, and callers may be allowed the group', async () => {
    const { admin } = await withModels('a', 'b')
    expect(warningOf(await admin.call('POST', '/admin/v1/models', group(['a', 'b'])))).toBeNull()
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_models: ['llama-3'] })))).toBeNull()
  })

  test('an unknown target, a pattern, a name that only a pattern serves and another group are named, each by its place', async () => {
    const { admin } = await withModels('a', 'vllm/*')
    await admin.call('POST', '/admin/v1/models', group(['a'], { display_name: 'inner' }))
    const answer = await admin.call('POST', '/admin/v1/models', group(['a', 'gone', 'vllm/*', 'vllm/x', 'inner']))
    const warning = warningOf(answer) ?? ''
    expect(warning.split('; ')).toEqual([
      'routing.targets[1].model "gone" names no direct model: no request goes there until it is one',
      'routing.targets[2].model "vllm/*" names no direct model: no request goes there until it is one',
      'routing.targets[3].model "vllm/x" names no direct model: no request goes there until it is one',
      'routing.targets[4].model "inner" is a model group, and only direct models can be targets: no request goes there until it is one',
    ])
    const { id } = entryOf(answer)
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(isRecord(body) && body.dangling).toEqual(
      ['gone', 'vllm/*', 'vllm/x', 'inner'].map((missing, index) => ({
        kind: 'models',
        id,
        name: 'llama-3',
        field: `routing.targets[${index + 1}].model`,
        missing,
      })),
    )
  })

  test('a group that names itself is told so once', async () => {
    const { admin } = await withModels()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', group(['x'])))
    const warning = warningOf(await admin.call('PUT', `/admin/v1/models/${id}`, group(['llama-3'])))
    expect(warning).toStartWith('routing.targets[0].model "llama-3" is a model group')
    expect(warning).not.toContain(';')
  })

  test('renaming or deleting a target, or making a group of it, names the groups that are left behind', async () => {
    const { admin, key, ids } = await withModels('a', 'b')
    await admin.call('POST', '/admin/v1/models', group(['a', 'b']))
    const left = 'models "llama-3" still names "a" in routing.targets[0].model'
    const path = `/admin/v1/models/${ids[0]}`
    expect(warningOf(await admin.call('PUT', path, model(key, { display_name: 'a', retries: 1 })))).toBeNull()
    expect(warningOf(await admin.call('PUT', path, model(key, { display_name: 'a2' })))).toBe(left)
    await admin.call('PUT', path, model(key, { display_name: 'a' }))
    expect(warningOf(await admin.call('PUT', path, group(['b'], { display_name: 'a' })))).toBe(left)
    expect(warningOf(await admin.call('DELETE', path))).toBe(left)
  })
})

describe('passthrough routes', () => {
  const PATH = '/admin/v1/passthrough_routes'
  const anonymous = (anonymous_key_id: string) =>
    passthroughRoute({ auth_mode: 'anonymous', anonymous_key_id, source_cidrs: ['10.0.0.0/8'] })

  test('a provider key and an anonymous key that do not exist are named, and listed by health', async () => {
    const admin = openAdmin()
    const answer = await admin.call('POST', PATH, anonymous('nobody'))
    expect(warningOf(answer)).toBe(
      'provider_key_id "pk" names no provider key: requests on this route fail until there is one; anonymous_key_id "nobody" is the id of no caller API key: nobody is let in until there is one',
    )
    const { id } = entryOf(answer)
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(isRecord(body) && body.dangling).toEqual([
      { kind: 'passthrough_routes', id, name: 'up', field: 'provider_key_id', missing: 'pk' },
      { kind: 'passthrough_routes', id, name: 'up', field: 'anonymous_key_id', missing: 'nobody' },
    ])
  })

  test('deleting what a route names says so', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey())).id
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_routes: ['u*'] }))).id
    expect(warningOf(await admin.call('POST', PATH, { ...anonymous(caller), provider_key_id: key }))).toBeNull()
    expect(warningOf(await admin.call('DELETE', `/admin/v1/provider_keys/${key}`))).toBe(
      `passthrough_routes "up" still names "${key}" in provider_key_id`,
    )
    expect(warningOf(await admin.call('DELETE', `/admin/v1/apikeys/${caller}`))).toBe(
      `passthrough_routes "up" still names "${caller}" in anonymous_key_id`,
    )
  })

  test('allowed routes that do not exist are named, patterns are not; a renamed or deleted route leaves its keys behind', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey())).id
    const { id } = entryOf(await admin.call('POST', PATH, passthroughRoute({ provider_key_id: key })))
    const caller = apiKey({ display_name: 'ci', allowed_routes: ['up', 'later', 'l*', 'a*b*'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', caller))).toBe(
      'allowed_routes names "later", and there is no such passthrough route yet; allowed_routes entry "a*b*" has more than one *, so it allows nothing',
    )
    const same = await admin.call('PUT', `${PATH}/${id}`, passthroughRoute({ provider_key_id: key, timeout_ms: 1 }))
    expect(warningOf(same)).toBeNull()
    const left = 'api_keys "ci" still names "up" in allowed_routes'
    const renamed = await admin.call('PUT', `${PATH}/${id}`, passthroughRoute({ provider_key_id: key, name: 'down' }))
    expect(warningOf(renamed)).toBe(left)
    await admin.call('PUT', `${PATH}/${id}`, passthroughRoute({ provider_key_id: key }))
    expect(warningOf(await admin.call('DELETE', `${PATH}/${id}`))).toBe(left)
  })

  test('what lets nobody in is pointed out: networks that are none, and a key without the route', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey())).id
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey())).id
    const answer = await admin.call('POST', PATH, { ...anonymous(caller), provider_key_id: key, source_cidrs: ['office'] })
    expect(warningOf(answer)).toBe(
      'source_cidrs entry "office" is no network or address such as 10.0.0.0/8, so it lets nobody in; anonymous_key_id names a key without this route in its allowed_routes, so nobody is let in',
    )
  })
})

describe('budgets', () => {
  const cost = { input_per_1k: 1, output_per_1k: 2 }
  const post = (admin: Harness, more: Record<string, unknown>) => admin.call('POST', '/admin/v1/budgets', budget(more))

  test('a scope that names no key or model, a team or user that no key has: named', async () => {
    const admin = openAdmin()
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ team_id: 'search', user_id: 'mia' })))
    const told: [string, string | undefined, string | null][] = [
      ['api_key', caller.id, null],
      ['team', 'search', null],
      ['user', 'mia', null],
      ['all', undefined, null],
      ['api_key', 'x', 'scope_ref "x" is the id of no caller API key: nothing is counted until there is one'],
      ['model', 'x', 'scope_ref "x" is the id of no model: nothing is counted until there is one'],
      ['team', 'x', 'no caller API key has the team_id "x": nothing is counted until one has'],
      ['user', 'x', 'no caller API key has the user_id "x": nothing is counted until one has'],
    ]
    for (const [scope, scope_ref, expected] of told) {
      expect(warningOf(await post(admin, { name: `${scope} ${scope_ref}`, scope, scope_ref }))).toBe(expected)
    }
    const left = warningOf(await admin.call('DELETE', `/admin/v1/apikeys/${caller.id}`))
    expect(left).toBe(`budgets "api_key ${caller.id}" still names "${caller.id}" in scope_ref`)
  })

  test('a limit in dollars names the models that have no price; one in tokens does not', async () => {
    const { admin, key, ids } = await withModels('a', 'b')
    const [a = '', b = ''] = ids
    await admin.call('PUT', `/admin/v1/models/${a}`, model(key, { display_name: 'a', cost }))
    const ofGroup = entryOf(await admin.call('POST', '/admin/v1/models', group(['a', 'b', 'a'], { display_name: 'g' })))
    const unseen = 'limit_usd does not see models without cost, which are "b": '
    const told: [string, Record<string, unknown>, string | null][] = [
      ['all', { scope: 'all' }, `${unseen}set their cost, or a limit_tokens`],
      ['both', { scope: 'all', limit_tokens: 5 }, `${unseen}limit_tokens alone limits them`],
      ['tokens', { scope: 'all', limit_usd: undefined, limit_tokens: 5 }, null],
      ['a', { scope: 'model', scope_ref: a }, null],
      ['b', { scope: 'model', scope_ref: b }, `${unseen}set their cost, or a limit_tokens`],
      ['g', { scope: 'model', scope_ref: ofGroup.id }, `${unseen}set their cost, or a limit_tokens`],
    ]
    for (const [name, more, expected] of told) {
      expect(warningOf(await post(admin, { name, scope_ref: undefined, ...more }))).toBe(expected)
    }
  })

  test('of many models without a price five are named and the rest counted', async () => {
    const { admin } = await withModels('a', 'b', 'c', 'd', 'e', 'f', 'g')
    expect(warningOf(await post(admin, { scope: 'all', scope_ref: undefined }))).toContain(
      '"a", "b", "c", "d", "e" and 2 more: set',
    )
  })
})

describe('references of rate-limit policies', () => {
  const scoped = (scope: string, scope_ref: string) => classicPolicy({ name: `${scope} ${scope_ref}`, scope, scope_ref })

  test('a scope that names no key or model is named; teams and users are free text', async () => {
    const { admin, ids } = await withModels('a')
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
    const post = (document: unknown) => admin.call('POST', '/admin/v1/rate_limit_policies', document)
    expect(warningOf(await post(scoped('model', ids[0] ?? '')))).toBeNull()
    expect(warningOf(await post(scoped('api_key', caller.id)))).toBeNull()
    for (const scope of ['team', 'member', 'team_member']) expect(warningOf(await post(scoped(scope, 'anything')))).toBeNull()
    // The id of a model is no id of a key, and an alias is no id.
    expect(warningOf(await post(scoped('api_key', ids[0] ?? '')))).toBe(
      `scope_ref "${ids[0]}" is the id of no caller API key: nothing is counted until there is one`,
    )
    const bad = await post(scoped('model', 'a'))
    expect(warningOf(bad)).toBe('scope_ref "a" is the id of no model: nothing is counted until there is one')
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(isRecord(body) && body.dangling).toContainEqual({
      kind: 'rate_limit_policies',
      id: entryOf(bad).id,
      name: 'model a',
      field: 'scope_ref',
      missing: 'a',
    })
  })

  test('ids and aliases in conditions are named by their place; patterns and names that a wildcard serves are not', async () => {
    const { admin, ids } = await withModels('a', 'vllm/*')
    const compare = (dimension: string, operator: string, value: unknown) => ({ dimension, operator, value })
    const conditions = [
      compare('model', 'in', [ids[0], 'no-id']),
      { logic: 'or', children: [compare('api_key', '==', 'no-key'), compare('model_name', '~=', 'no-alias')] },
      compare('model_name', 'in', ['a', 'vllm/x']),
      compare('model_name', '~~', '^none$'),
      compare('team', '==', 'anything'),
    ]
    const warning = warningOf(await admin.call('POST', '/admin/v1/rate_limit_policies', policy({ conditions }))) ?? ''
    expect(warning.split('; ')).toEqual([
      'conditions[0].value names "no-id", and there is no model with this id yet',
      'conditions[1].children[0].value names "no-key", and there is no caller API key with this id yet',
      'conditions[1].children[1].value names "no-alias", and there is no such model yet',
    ])
  })

  test('deleting a key or a model names the policies that are left behind; a rename leaves ids alone', async () => {
    const { admin, key, ids } = await withModels('a')
    const [id = ''] = ids
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
    await admin.call('POST', '/admin/v1/rate_limit_policies', scoped('model', id))
    await admin.call('POST', '/admin/v1/rate_limit_policies', scoped('api_key', caller.id))
    expect(warningOf(await admin.call('PUT', `/admin/v1/models/${id}`, model(key, { display_name: 'a2' })))).toBeNull()
    expect(warningOf(await admin.call('DELETE', `/admin/v1/models/${id}`))).toBe(
      `rate_limit_policies "model ${id}" still names "${id}" in scope_ref`,
    )
    expect(warningOf(await admin.call('DELETE', `/admin/v1/apikeys/${caller.id}`))).toBe(
      `rate_limit_policies "api_key ${caller.id}" still names "${caller.id}" in scope_ref`,
    )
  })
})

describe('what has no effect, or another one than it seems', () => {
  const check = (more: Record<string, unknown> = {}) => ({
    background_model_check: { enabled: true, interval_seconds: 30, timeout_seconds: 5, stale_after_seconds: 90, ...more },
  })
  const models: [string, (key: string) => Record<string, unknown>, string | null][] = [
    ['a group as it should be', () => group(['a', 'b']), null],
    ['a weight of 0', () => group(['a', { model: 'b', weight: 0 }]), 'routing.targets[1].weight is 0, which counts as 1'],
    ['a target twice', () => group(['a', 'b', 'a', 'a']), 'routing.targets names "a" more than once'],
    ['too many fallbacks', () => withRouting({ max_fallbacks: 2 }), 'routing.max_fallbacks is cut to 1'],
    ['as many fallbacks as there are', () => withRouting({ max_fallbacks: 1 }), null],
    [
      'a star in the alias of a group',
      () => group(['a'], { display_name: 'g/*' }),
      'only requests for exactly this name reach it',
    ],
    [
      'tags on all',
      () =>
        group([
          { model: 'a', tags: ['eu'] },
          { model: 'b', tags: ['us'] },
        ]),
      null,
    ],
    [
      'tags on one',
      () => group(['a', { model: 'b', tags: ['eu'] }]),
      'targets[0] has no tags while others have, so no request with tags reaches it',
    ],
    [
      'a default beside an untagged one',
      () => group(['a', { model: 'b', tags: ['default'] }]),
      'targets[0] has no tags while others have, so no request reaches it',
    ],
    ['tags that are empty', () => group(['a', { model: 'b', tags: [] }]), null],
    ['a limit of 0 on a group', () => group(['a'], { rate_limit: { rpm: 0 } }), 'rate_limit.rpm is 0, so no request passes'],
    [
      'a limit of 0',
      key => model(key, { rate_limit: { tpm: 5, concurrency: 0 } }),
      'rate_limit.concurrency is 0, so no request passes',
    ],
    ['no limit at all', key => model(key, { rate_limit: {} }), 'rate_limit is empty, so it limits nothing'],
    ['limits', key => model(key, { rate_limit: { rpm: 1 } }), null],
    ['a check', key => model(key, check()), null],
    [
      'a check of a pattern',
      key => model(key, { display_name: 'v/*', ...check() }),
      'background_model_check has no effect on a pattern',
    ],
    ['a check of a pattern that is off', key => model(key, { display_name: 'v/*', ...check({ enabled: false }) }), null],
    [
      'a verdict that is forgotten at once',
      key => model(key, check({ stale_after_seconds: 29 })),
      'is forgotten before the next one',
    ],
    [
      'a prompt that is not sent',
      key => model(key, check({ mode: 'endpoint', prompt: 'Hi' })),
      'background_model_check.prompt is not sent',
    ],
  ]
  function withRouting(more: Record<string, unknown>) {
    const { routing, ...rest } = group(['a', 'b'])
    return { ...rest, routing: { ...routing, ...more } }
  }
  test.each(models)('%s', async (_name, document, expected) => {
    const { admin, key } = await withModels('a', 'b')
    const warning = warningOf(await admin.call('POST', '/admin/v1/models', document(key)))
    if (expected === null) expect(warning).toBeNull()
    else expect(warning).toContain(expected)
    // One matter is told once.
    expect(warning?.split('; ').length ?? 0).toBe(expected === null ? 0 : 1)
  })

  const schedule = { timezone: 'UTC', days_of_week: ['mon'], start_time: '08:00', end_time: '08:00' }
  const policies: [string, Record<string, unknown>, string | null][] = [
    ['a policy as it should be', classicPolicy({ max_tokens: 5 }), null],
    ['tokens by day', classicPolicy({ window: 'day', max_tokens: 5 }), null],
    ['tokens by second', classicPolicy({ window: 'second', max_tokens: 5 }), 'max_tokens has no effect with the window "second"'],
    ['tokens by hour', classicPolicy({ window: 'hour', max_tokens: 5 }), 'max_tokens has no effect with the window "hour"'],
    ['a limit of 0', policy({ limits: { rpd: 0 } }), 'limits.rpd is 0, so no request passes'],
    [
      'a window of no length',
      policy({ schedules: [{ ...schedule, end_time: '09:00' }, schedule] }),
      'schedules[1] ends when it starts',
    ],
    ['the same in the classic form', classicPolicy({ schedules: [schedule] }), 'schedules[0] ends when it starts'],
  ]
  test.each(policies)('of policies: %s', async (_name, document, expected) => {
    const warning = warningOf(await openAdmin().call('POST', '/admin/v1/rate_limit_policies', document))
    if (expected === null) expect(warning).toBeNull()
    else expect(warning).toContain(expected)
  })

  const collector = (host: string, more: Record<string, unknown> = {}) =>
    otlpExporter({ endpoint: `http://${host}:4318/v1/traces`, ...more })
  const exporters: [string, Record<string, unknown>, string | null][] = [
    ['a collector of this machine', collector('localhost'), null],
    ['a collector over TLS', otlpExporter({ endpoint: 'https://collector.example/v1/traces' }), null],
    ['a collector elsewhere in clear text', collector('10.0.0.9'), 'endpoint is plain http, so records cross the network'],
    [
      'the same with a credential',
      collector('10.0.0.9', { headers: { a: 'b' } }),
      'endpoint is plain http, so records and the values of headers cross the network in clear text',
    ],
    ['no path', otlpExporter({ endpoint: 'http://localhost:4318' }), 'endpoint has no path'],
    ['a query', otlpExporter({ endpoint: 'https://collector.example/v1/traces?token=x' }), 'endpoint has a query'],
    ['a rate of 0', otlpExporter({ sample_rate: 0 }), 'sample_rate is 0, so nothing is delivered'],
    ['content', otlpExporter({ content_mode: 'full' }), 'content_mode is "full": the texts of requests'],
    ['a store of this machine', s3Exporter(), null],
    ['a store elsewhere in clear text', s3Exporter({ endpoint: 'http://10.0.0.9:9000' }), 'endpoint is plain http'],
    ['Amazon', s3Exporter({ endpoint: undefined }), null],
    ['a folder', folderExporter(), null],
  ]
  test.each(exporters)('of exporters: %s', async (_name, document, expected) => {
    const warning = warningOf(await openAdmin().call('POST', '/admin/v1/observability_exporters', document))
    if (expected === null) expect(warning).toBeNull()
    else expect(warning).toContain(expected)
  })

  test('of caller keys: limits of 0 and no limits at all', async () => {
    const admin = openAdmin()
    const zero = await admin.call('POST', '/admin/v1/apikeys', apiKey({ rate_limit: { rpm: 0, tpd: 0 } }))
    expect(warningOf(zero)).toBe('rate_limit.rpm is 0, so no request passes; rate_limit.tpd is 0, so no request passes')
    const none = await admin.call('POST', '/admin/v1/apikeys', apiKey({ key_hash: sha256('b'), rate_limit: { rpm: null } }))
    expect(warningOf(none)).toBe('rate_limit is empty, so it limits nothing')
  })
})

const headers = (default_headers: Record<string, string>) => ({ request: { default_headers } })

describe('models', () => {
  test('an entry of allowed_cidrs that is no network is accepted, and named', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const answer = await admin.call(
      'POST',
      '/admin/v1/models',
      model(key.id, { allowed_cidrs: ['10.0.0.0/8', '10.0.0.0/33', '::1'] }),
    )
    expect(warningOf(answer)).toBe(
      'allowed_cidrs entry "10.0.0.0/33" is no network or address such as 10.0.0.0/8, so it lets nobody in',
    )
  })
})

describe('provider keys', () => {
  const cases: [string, Record<string, unknown>, string | null][] = [
    ['the guide', {}, null],
    ['a label that agrees with the adapter', { provider: 'openai', adapter: 'openai' }, null],
    ['OpenAI itself, without api_base', { provider: 'openai', adapter: undefined, api_base: undefined }, null],
    ['a label that decides against the adapter', { provider: 'openai', adapter: 'anthropic' }, 'adapter "anthropic" is not used'],
    ['the other such label', { provider: 'anthropic', adapter: 'openai' }, 'adapter "openai" is not used'],
    ['neither a known label nor an adapter', { adapter: undefined }, 'no dialect is known for this provider'],
    ['a dialect that is not spoken', { adapter: 'bedrock' }, 'does not speak the dialect "bedrock"'],
    ['a private label without api_base', { api_base: undefined }, 'there is no api_base'],
    ['a full endpoint', { api_base: 'http://10.0.0.5:8000/v1/chat/completions' }, '"/chat/completions" is cut off'],
    ['a full endpoint with a slash', { api_base: 'http://10.0.0.5:8000/v1/chat/completions/' }, '"/chat/completions" is cut off'],
    ['no path', { api_base: 'http://10.0.0.5:8000' }, 'api_base has no path'],
    ['a slash alone', { api_base: 'http://10.0.0.5:8000/' }, 'api_base has no path'],
    ['headers that are set', headers({ 'X-Team': 'a', 'user-agent': '${model.name}/${request.api_key.team_id}' }), null],
    [
      'a header that is never set',
      headers({ Authorization: 'Bearer x' }),
      'default_headers: Authorization belongs to the gateway',
    ],
    ['a header of the transport', headers({ 'content-length': '1' }), 'default_headers: content-length belongs to the gateway'],
    ['an unknown variable', headers({ 'x-a': '${nope}' }), 'default_headers: x-a names ${nope}, which does not exist'],
    [
      'what may be no variable',
      headers({ 'x-a': '${sk-HIDDEN}' }),
      'default_headers: x-a names a variable, which does not exist',
    ],
    ['a slash at the end', { api_base: 'http://10.0.0.5:8000/v1/' }, null],
  ]
  test.each(cases)('%s', async (_name, more, expected) => {
    const warning = warningOf(await openAdmin().call('POST', '/admin/v1/provider_keys', providerKey(more)))
    if (expected === null) expect(warning).toBeNull()
    else expect(warning).toContain(expected)
  })
})

describe('the header', () => {
  test('carries names beyond ASCII and control characters percent-encoded, so that no name can break it', async () => {
    const answer = await openAdmin().call('POST', '/admin/v1/models', model('pk\r\nx-evil: 1; ü 100% \u{1f600}'))
    const value = warningOf(answer) ?? ''
    expect(value).toMatch(/^[\x20-\x7e]+$/)
    expect(answer.headers.has('x-evil')).toBe(false)
    expect(decodeURIComponent(value)).toContain('"pk\r\nx-evil: 1; ü 100% \u{1f600}"')
  })

  test('is a header that a client reads over a real connection', async () => {
    const admin = openAdmin()
    const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: request => admin.fetch(request) })
    try {
      const response = await fetch(new URL('/admin/v1/models', server.url), {
        method: 'POST',
        headers: { 'x-api-key': 'admin-test-key-1', 'content-type': 'application/json' },
        body: JSON.stringify(model('fehlt-für-immer')),
      })
      expect(response.headers.get(HEADER)).toContain('f%C3%BCr')
    } finally {
      await server.stop(true)
    }
  })

  test('stays short however much there is to say', async () => {
    const allowed_models = Array.from({ length: 1000 }, (_, index) => `missing-${index}-${'é'.repeat(100)}`)
    const value = warningOf(await openAdmin().call('POST', '/admin/v1/apikeys', apiKey({ allowed_models }))) ?? ''
    expect(value.length).toBeLessThan(4096)
    expect(value).toMatch(/; and \d+ more, see \/admin\/v1\/health$/)
  })

  test('says where to look when the first thing to say is already too long', () => {
    expect(warningHeader(['\u{1f600}'.repeat(300), 'second'])).toBe('2 more, see /admin/v1/health')
  })

  test('is absent when there is nothing to say, and survives a lone surrogate', () => {
    expect(warningHeader([])).toBeUndefined()
    expect(warningHeader(['a\ud800b'])).toBe('a%EF%BF%BDb')
  })
})

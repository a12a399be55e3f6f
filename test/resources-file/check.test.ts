import { describe, expect, test } from 'bun:test'
import { kinds } from '../../src/resources/index.ts'
import { checkResources, type Environment } from '../../src/resources-file/check.ts'
import { idOf } from '../../src/resources-file/names.ts'
import { renderReport, renderScope } from '../../src/resources-file/problem.ts'

type Entry = Record<string, unknown>

const PROVIDER_KEY = {
  display_name: 'vllm',
  provider: 'vllm',
  adapter: 'openai',
  secret: 'not-used',
  api_base: 'http://10.0.0.5:8000/v1',
}
const MODEL = { display_name: 'llama', provider: 'vllm', model_name: 'org/llama', provider_key: 'vllm' }
const HASH = 'f39485b1ed9b0ba68f2804cb94e29e632f256bd6f37aa4d071cf3f9967a65b1d'
const API_KEY = { display_name: 'app', key_hash: HASH, allowed_models: ['llama'] }

/** A file with the usual provider key, model and caller key, and what a test puts in their place. */
function file(more: Entry = {}): Entry {
  return structuredClone({ _format_version: '1', provider_keys: [PROVIDER_KEY], models: [MODEL], api_keys: [API_KEY], ...more })
}

const check = (more: Entry = {}, env: Environment = {}) => checkResources(file(more), env)

/** Problems as the report has them, without the dash. */
function problems(root: unknown, env: Environment = {}): string[] {
  return checkResources(root, env).problems.map(({ scope, message }) => `${renderScope(scope)}: ${message}`)
}
const wrong = (more: Entry, env: Environment = {}) => problems(file(more), env)

/** The documents of a kind; fails the test where the file is refused. */
function values(kind: string, more: Entry = {}, env: Environment = {}): unknown[] {
  expect(wrong(more, env)).toEqual([])
  return check(more, env)
    .entries.filter(entry => entry.kind === kind)
    .map(({ value }) => value)
}

describe('the top of the file', () => {
  test.each<[unknown, string]>([
    [null, '(file): the file is empty'],
    [[], '(file): expected a mapping of collections at the top, not an array'],
    ['text', '(file): expected a mapping of collections at the top, not a string'],
    [{}, '(file): `_format_version` is required: write `_format_version: "1"`'],
    [{ _format_version: 1 }, '(file): `_format_version` must be a string: put it in quotes'],
    [{ _format_version: '2' }, '(file): `_format_version` is not one that this version knows'],
    [
      { _format_version: '1', modles: [] },
      '(file): unknown collection `modles` (did you mean `models`?), expected one of `provider_keys`, `models`, ',
    ],
    [{ _format_version: '1', guardrails: [] }, '(file): unknown collection `guardrails`, which this version does not support'],
    [{ _format_version: '1', models: {} }, '(file): `models` must be a list of entries, not an object'],
    [{ _format_version: '1', models: [5] }, 'models[0]: expected a mapping, not a number'],
  ])('%j', (root, message) => {
    expect(problems(root)).toEqual([expect.stringContaining(message)])
  })

  test('collections may be missing or null', () => {
    expect(checkResources({ _format_version: '1', models: null }, {})).toEqual({
      entries: [],
      problems: [],
      warnings: [],
      sources: new Map(),
    })
  })

  test('every kind that there is has a collection', () => {
    expect(problems({ _format_version: '1', ...Object.fromEntries(kinds.map(kind => [kind, []])) })).toEqual([])
  })
})

describe('names and ids', () => {
  test('an id follows from the name alone', () => {
    const ids = new Map(check().entries.map(({ kind, id }) => [kind, id]))
    expect(ids.get('models')).toBe(idOf('models', 'llama'))
    expect(idOf('api_keys', 'anon-principal')).toBe('9aeb246c-ed38-5bef-a854-c8565ca95fb4')
  })

  test('a name that is given twice names the first', () => {
    expect(wrong({ models: [MODEL, { ...MODEL, model_name: 'other' }] })).toEqual([
      'models[1] ("llama"): duplicate `display_name`: the name is first used by models[0]',
    ])
  })

  test.each([
    [{ display_name: undefined }, 'models[0]: field `display_name`: is required'],
    [{ display_name: '' }, 'models[0]: field `display_name`: must be a string that is not empty'],
    [{ display_name: 5 }, 'models[0]: field `display_name`: must be a string that is not empty'],
    [{ id: 'x' }, 'models[0] ("llama"): an entry of models does not accept `id`'],
  ])('%j', (change, message) => {
    expect(wrong({ models: [{ ...MODEL, ...change }], api_keys: [] })).toEqual([expect.stringContaining(message)])
  })

  test('the label of a caller key is kept', () => {
    expect(values('api_keys')).toEqual([expect.objectContaining({ display_name: 'app', key_hash: HASH })])
  })
})

describe('names in place of ids', () => {
  test('of the provider key of a model', () => {
    expect(values('models')).toEqual([expect.objectContaining({ provider_key_id: idOf('provider_keys', 'vllm') })])
    expect(values('models')[0]).not.toHaveProperty('provider_key')
  })

  test.each([
    [{ provider_key: 'vlm' }, 'field `provider_key`: "vlm" names no entry of provider_keys: defined are "vllm"'],
    [{ provider_key: 5 }, 'field `provider_key`: must be the name of an entry of provider_keys, not a number'],
    [{ provider_key: ['vllm'] }, 'field `provider_key`: must be the name of an entry of provider_keys, not an array'],
    [{ provider_key_id: 'x' }, 'field `provider_key`: not together with `provider_key_id`: keep one of the two'],
    [
      { provider_key: undefined, provider_key_id: 'x' },
      'field `provider_key_id`: is the id of no entry of provider_keys in this file',
    ],
    [{ provider_key: undefined }, 'field `provider_key`: is required'],
  ])('%j', (change, message) => {
    expect(wrong({ models: [{ ...MODEL, ...change }] })).toEqual(
      [`models[0] ("llama"): ${message}`].map(text => expect.stringContaining(text)),
    )
  })

  test('the id that follows from a name may be written itself', () => {
    const model = { ...MODEL, provider_key: undefined, provider_key_id: idOf('provider_keys', 'vllm') }
    expect(values('models', { models: [model] })).toHaveLength(1)
  })

  test('of what a policy or a budget is for', () => {
    const classic = { name: 'a', scope: 'model', scope_ref: 'llama', window: 'day', max_requests: 1 }
    const team = { name: 'b', scope: 'team', scope_ref: 'llama', window: 'day', max_requests: 1 }
    expect(values('rate_limit_policies', { rate_limit_policies: [classic, team] })).toMatchObject([
      { scope_ref: idOf('models', 'llama') },
      { scope_ref: 'llama' },
    ])
    const budget = { name: 'c', scope: 'api_key', scope_ref: 'app', limit_tokens: 5, period: 'day' }
    expect(values('budgets', { budgets: [budget] })).toMatchObject([{ scope_ref: idOf('api_keys', 'app') }])
    expect(
      wrong({ budgets: [{ ...budget, scope_ref: 'nobody' }], rate_limit_policies: [{ ...classic, scope_ref: 'none' }] }),
    ).toEqual([
      'rate_limit_policies[0] ("a"): field `scope_ref`: "none" names no entry of models: defined are "llama"',
      'budgets[0] ("c"): field `scope_ref`: "nobody" names no entry of api_keys: defined are "app"',
    ])
  })

  test('of the provider key and the caller key of a passthrough route, whose own name keys may list', () => {
    const route = { display_name: 'tools', path_prefix: '/tools', target_url: 'http://10.0.0.5' }
    const injecting = { ...route, provider_key: 'vllm' }
    const open = {
      ...{ ...route, name: 'open', display_name: undefined, path_prefix: '/open', auth_mode: 'anonymous' },
      ...{ anonymous_key: 'app', source_cidrs: ['10.0.0.0/8'], credential_mode: 'forward_client' },
    }
    expect(values('passthrough_routes', { passthrough_routes: [injecting, open] })).toMatchObject([
      { name: 'tools', provider_key_id: idOf('provider_keys', 'vllm') },
      { name: 'open', anonymous_key_id: idOf('api_keys', 'app') },
    ])
    expect(wrong({ passthrough_routes: [{ ...injecting, provider_key: 'none' }] })).toEqual([
      'passthrough_routes[0] ("tools"): field `provider_key`: "none" names no entry of provider_keys: defined are "vllm"',
    ])
    const key = { display_name: 'k', key_hash: 'a'.repeat(64), allowed_models: ['*'] }
    const listing = (allowed_routes: string[]) => ({ api_keys: [{ ...key, allowed_routes }], passthrough_routes: [injecting] })
    expect(values('api_keys', listing(['tools', 'x-*']))).toHaveLength(1)
    expect(wrong(listing(['tols']))).toEqual([
      'api_keys[0] ("k"): field `allowed_routes[0]`: "tols" names no passthrough route of this file',
    ])
  })

  test('in conditions at any level, for keys and models alone', () => {
    const leaf = (dimension: string, value: unknown) => ({ dimension, operator: Array.isArray(value) ? 'in' : '==', value })
    const conditions = [
      leaf('model', 'llama'),
      {
        logic: 'or',
        children: [leaf('api_key', ['app']), { logic: 'and', children: [leaf('team', 'app'), leaf('model_name', 'llama')] }],
      },
    ]
    const policy = { name: 'p', limits: { rpm: 1 }, conditions }
    expect(values('rate_limit_policies', { rate_limit_policies: [policy] })).toMatchObject([
      {
        conditions: [
          { value: idOf('models', 'llama') },
          { children: [{ value: [idOf('api_keys', 'app')] }, { children: [{ value: 'app' }, { value: 'llama' }] }] },
        ],
      },
    ])
    const unknown = { ...policy, conditions: [{ logic: 'or', children: [leaf('api_key', ['app', 'nobody'])] }] }
    expect(wrong({ rate_limit_policies: [unknown] })).toEqual([
      'rate_limit_policies[0] ("p"): field `conditions[0].children[0].value`: "nobody" names no entry of api_keys: defined are "app"',
    ])
  })
})

describe('the hash of a key', () => {
  const key = (more: Entry) => ({ api_keys: [{ display_name: 'app', allowed_models: [], ...more }] })

  test('comes from the variable that key_env names', () => {
    expect(values('api_keys', key({ key_env: 'APP_KEY' }), { APP_KEY: 'sk-byo-caller' })).toMatchObject([{ key_hash: HASH }])
  })

  test.each<[Entry, string]>([
    [{}, 'exactly one of `key_env` and `key_hash` is required'],
    [{ key_env: 'APP_KEY', key_hash: HASH }, 'field `key_env`: not together with `key_hash`'],
    [{ key_env: 'MISSING' }, 'field `key_env`: environment variable `MISSING` is unset or empty'],
    [{ key_env: 'EMPTY' }, 'field `key_env`: environment variable `EMPTY` is unset or empty'],
    [{ key_env: 'NESTED' }, 'field `key_env`: environment variable `NESTED` holds `${`'],
    [{ key_env: '${APP_KEY}' }, 'field `key_env`: takes the name of a variable, without `$` and braces'],
    [{ key_env: 'sk-live-0001' }, 'field `key_env`: takes the name of a variable'],
    [{ key_env: 5 }, 'field `key_env`: takes the name of a variable'],
    [{ key_hash: '' }, 'field `key_hash`: must be 64 hexadecimal digits'],
  ])('%j', (more, message) => {
    const found = wrong(key(more), { APP_KEY: 'sk-live-0001', EMPTY: '', NESTED: 'sk-${live-0001' })
    expect(found).toEqual([expect.stringContaining(`api_keys[0] ("app"): ${message}`)])
    expect(found.join()).not.toContain('live-0001')
  })

  test('that is none is taken, with a warning that does not repeat it', () => {
    const { entries, problems, warnings } = check(key({ key_hash: 'sk-plaintext' }))
    expect(problems).toEqual([])
    expect(entries.filter(({ kind }) => kind === 'api_keys')).toMatchObject([{ value: { key_hash: 'sk-plaintext' } }])
    expect(warnings).toEqual([expect.stringContaining('api_keys[0] ("app"): `key_hash` is not 64 hexadecimal digits')])
    expect(warnings.join()).not.toContain('sk-plaintext')
  })

  test('of two entries must differ; the entries are named, and no hash', () => {
    const found = wrong({ api_keys: [API_KEY, { ...API_KEY, display_name: 'other', key_hash: HASH.toUpperCase() }] })
    expect(found).toEqual(['api_keys[1] ("other"): the same `key_hash` as api_keys[0] ("app"): each key needs one of its own'])
  })

  test('a key that no request could present is warned of', () => {
    expect(check(key({ key_env: 'APP_KEY' }), { APP_KEY: 'sk-1\n' }).warnings).toEqual([
      expect.stringContaining('environment variable `APP_KEY` begins or ends with white space'),
    ])
  })
})

describe('variables', () => {
  test('fill values at any depth, and bring in no structure', () => {
    const env = { SECRET: 'a: b\n- ${HOST}', HOST: 'server', TAG: 'gold' }
    const providerKey = {
      ...PROVIDER_KEY,
      secret: 'x${TAG}y',
      api_base: 'http://${HOST}:8000/v1',
      request: { default_headers: { 'x-a': '$${request.id} $TAG' } },
    }
    expect(values('provider_keys', { provider_keys: [providerKey] }, env)).toMatchObject([
      { secret: 'xgoldy', api_base: 'http://server:8000/v1', request: { default_headers: { 'x-a': '${request.id} $TAG' } } },
    ])
  })

  test('are not looked for in keys, and give texts alone', () => {
    const models = [{ ...MODEL, timeout: '${MS}', '${X}': 1 }]
    expect(wrong({ models }, { MS: '500', X: 'retries' })).toEqual([
      expect.stringMatching(/unknown field `\$\{X\}`.*; field `timeout`: must be a number, not a string$/),
    ])
  })

  test('that are missing are named with the field', () => {
    const group = { display_name: 'g', routing: { targets: [{ model: '${TARGET}' }] } }
    expect(wrong({ models: [MODEL, group] })).toEqual([
      'models[1] ("g"): field `routing.targets[0].model`: environment variable `TARGET` is unset or empty',
    ])
  })

  test('what came from one is never told, wherever it ends up', () => {
    const secret = 'sk-from-variable-0001'
    const env = { S: secret }
    const found = [
      ...wrong({ models: [{ ...MODEL, provider_key: '${S}' }] }, env),
      ...wrong({ provider_keys: [{ ...PROVIDER_KEY, display_name: '${S}' }] }, env),
      ...wrong({ provider_keys: [{ ...PROVIDER_KEY, api_base: '${S}' }] }, env),
      ...wrong({ provider_keys: [{ ...PROVIDER_KEY, provider: 5, display_name: '${S}' }], models: [], api_keys: [] }, env),
      ...wrong({ api_keys: [{ ...API_KEY, allowed_models: ['${S}'] }] }, env),
      ...wrong({ api_keys: [{ ...API_KEY, key_hash: undefined, key_env: '${S}' }] }, env),
      ...wrong({ models: [{ ...MODEL, provider: '${S} ' }] }, env),
    ]
    expect(found.length).toBeGreaterThan(6)
    expect(found.join('\n')).not.toContain(secret)
    expect(found).toContainEqual(expect.stringContaining('("${S}")'))
  })
})

describe('documents', () => {
  test('are held to what the admin API holds writes to, all problems of an entry in one line', () => {
    const providerKey = { ...PROVIDER_KEY, api_base: 'ftp://x', sercet: 'x', secret: 'line\nbreak', display_name: 'bad' }
    const [found = '', ...more] = wrong({ provider_keys: [PROVIDER_KEY, providerKey] })
    expect(more).toEqual([])
    expect(found).toContain('provider_keys[1] ("bad"): unknown field `sercet`')
    expect(found).toContain('field `api_base`: must start with http:// or https://')
    expect(found).toContain('field `secret`: must hold only characters that a header can carry')
    expect(found).not.toContain('break"')
  })

  test.each<[Entry, string]>([
    [{ models: [{ ...MODEL, embedding: {} }] }, 'models[0] ("llama"): `embedding` is not supported by this version'],
    [{ api_keys: [{ ...API_KEY, jwt_subject: 'x' }] }, 'api_keys[0] ("app"): `jwt_subject` is not supported by this version'],
    [{ provider_keys: [{ ...PROVIDER_KEY, api_key: 'x' }] }, 'provider_keys[0] ("vllm"): field `api_key`: duplicate field'],
    [
      { provider_keys: [{ ...PROVIDER_KEY, secret: '***' }] },
      'provider_keys[0] ("vllm"): field `secret`: *** is what reads show',
    ],
    [
      { models: [MODEL, { display_name: 'g', routing: { targets: [] } }] },
      'models[1] ("g"): field `routing.targets`: must name at least one target',
    ],
  ])('%j', (more, message) => {
    expect(wrong(more)).toEqual([expect.stringContaining(message)])
  })

  test('`api_key` is the other spelling of `secret`', () => {
    const providerKey = { display_name: 'vllm', adapter: 'openai', api_key: 'not-used' }
    expect(values('provider_keys', { provider_keys: [providerKey] })).toMatchObject([{ secret: 'not-used' }])
  })
})

describe('what entries name must be in the file', () => {
  test.each<[Entry, string]>([
    [
      { api_keys: [{ ...API_KEY, allowed_models: ['llama', 'lama'] }] },
      'api_keys[0] ("app"): field `allowed_models[1]`: "lama" names no model',
    ],
    [
      { models: [MODEL, { display_name: 'g', routing: { targets: [{ model: 'llama' }, { model: 'x' }] } }] },
      'models[1] ("g"): field `routing.targets[1].model`: "x" names no model',
    ],
  ])('%j', (more, message) => {
    expect(wrong(more)).toEqual([expect.stringContaining(message)])
  })

  test('patterns name nothing in particular, and a pattern of a model has every name that it matches', () => {
    const models = [MODEL, { ...MODEL, display_name: 'vllm/*', model_name: '*' }]
    expect(wrong({ models, api_keys: [{ ...API_KEY, allowed_models: ['*', 'other/*', 'vllm/qwen'] }] })).toEqual([])
  })

  test('an entry that is refused is there all the same: nothing follows from its mistake', () => {
    expect(wrong({ provider_keys: [{ ...PROVIDER_KEY, secret: '${MISSING}' }] })).toEqual([
      'provider_keys[0] ("vllm"): field `secret`: environment variable `MISSING` is unset or empty',
    ])
  })
})

describe('the report', () => {
  test('lists all problems, the file first, then entries as they stand in it', () => {
    const { problems } = checkResources(
      {
        _format_version: 1,
        api_keys: [{ ...API_KEY, allowed_models: ['x'] }],
        models: [{ display_name: 'a' }, 'b', { ...MODEL, provider_key: 'x', timeout: -1 }],
      },
      {},
    )
    expect(renderReport('/etc/aisix/resources.yaml', problems).split('\n')).toEqual([
      'resources file /etc/aisix/resources.yaml: 6 error(s):',
      expect.stringContaining('  - (file): `_format_version` must be a string'),
      expect.stringContaining('  - models[0] ("a"): field `provider`: is required; field `model_name`: is required'),
      '  - models[1]: expected a mapping, not a string',
      '  - models[2] ("llama"): field `provider_key`: "x" names no entry of provider_keys: the file has no provider_keys',
      '  - models[2] ("llama"): field `timeout`: must be at least 0',
      '  - api_keys[0] ("app"): field `allowed_models[0]`: "x" names no model of this file',
    ])
  })

  test('is bounded', () => {
    const { problems } = check({ models: Array.from({ length: 5000 }, () => 5), api_keys: [] })
    const lines = renderReport('r.yaml', problems).split('\n')
    expect(lines[0]).toBe('resources file r.yaml: 5000 error(s):')
    expect(lines).toHaveLength(1002)
    expect(lines.at(-1)).toBe('  - and 4000 more')
  })

  test('names are cut and their control characters escaped', () => {
    const found = wrong({ models: [{ ...MODEL, display_name: `\u001b[2J${'x'.repeat(300)}`, timeout: -1 }], api_keys: [] })
    expect(found.join()).not.toContain('\u001b')
    expect(found.join().length).toBeLessThan(400)
  })
})

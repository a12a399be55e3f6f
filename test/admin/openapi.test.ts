import { describe, expect, test } from 'bun:test'
import { type OpenApiDocument, openApiDocument } from '../../src/admin/openapi.ts'
import { resourceRoutes } from '../../src/admin/resource-routes.ts'
import { CALLER_ERROR_DESCRIPTIONS } from '../../src/admin/route.ts'
import { ERRORS, type ErrorRow } from '../../src/errors.ts'
import { silentLog } from '../../src/lib/log.ts'
import { kinds, RESOURCES } from '../../src/resources/index.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { VERSION } from '../../src/version.ts'
import {
  type Answer,
  apiKey,
  budget,
  classicPolicy,
  entryOf,
  folderExporter,
  group,
  isRecord,
  model,
  openAdmin,
  otlpExporter,
  passthroughRoute,
  policy,
  providerKey,
  s3Exporter,
} from './harness.ts'
import { misfits } from './json-schema.ts'

async function load(): Promise<OpenApiDocument> {
  const { text } = await openAdmin().call('GET', '/admin/openapi.json', undefined, {})
  return JSON.parse(text)
}

function expectValid(document: OpenApiDocument, schema: unknown, value: unknown) {
  expect({ value, misfits: misfits(document.components.schemas, schema, value) }).toEqual({ value, misfits: [] })
}

/** A value with nothing in it that is undefined, as it goes over the wire. */
const sent = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

const operationsOf = (document: OpenApiDocument) =>
  Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )

/** Schemas of documents that operators write, the forms of kinds that have several included. */
const WRITTEN = [
  'ProviderKey',
  'DirectModel',
  'ModelGroup',
  'ApiKey',
  'ClassicPolicy',
  'ConditionalPolicy',
  'OtlpHttpExporter',
  'S3Exporter',
  'FolderExporter',
  'PassthroughRoute',
]

describe('/admin/openapi.json', () => {
  test('is OpenAPI 3.1.0 of this product, the same each time', async () => {
    const document = await load()
    expect(document).toMatchObject({ openapi: '3.1.0', info: { title: 'AISIX Admin API', version: VERSION } })
    expect(JSON.stringify(await load())).toBe(JSON.stringify(document))
  })

  test('describes every route of the contract with its errors', async () => {
    const document = await load()
    const described = operationsOf(document).map(({ path, method, operation }) => {
      const isOfBody = (status: string) => path.startsWith('/admin/') && ['408', '413', '415'].includes(status)
      const statuses = Object.keys(operation.responses).filter(status => !isOfBody(status))
      return `${method} ${path} ${statuses.join(' ')}`
    })
    const crud = (path: string) => [
      `GET ${path} 200 401 500`,
      `POST ${path} 200 400 401 403 409 500`,
      `GET ${path}/{id} 200 401 404 500`,
      `PUT ${path}/{id} 200 400 401 403 404 409 500`,
      `DELETE ${path}/{id} 200 401 403 404 409 500`,
    ]
    expect(described.toSorted()).toEqual(
      [
        'GET /livez 200 503',
        'GET /readyz 200 503',
        'GET /admin/openapi.json 200',
        'GET /admin/openapi-scalar 200',
        'GET /admin/v1/health 200 401 500',
        'GET /admin/v1/models/status 200 401 500',
        'GET /admin/v1/audit 200 400 401 404 500 503',
        'GET /admin/v1/backup 200 400 401 403 404 409 500 503',
        'GET /admin/v1/usage 200 400 401 500 503',
        'GET /admin/v1/requests 200 400 401 500 503',
        'GET /admin/v1/requests/{id} 200 400 401 404 500 503',
        'GET /admin/v1/in_flight 200 400 401 500',
        'GET /admin/v1/catalog/models 200 400 401 500 503',
        'POST /admin/v1/apikeys/{id}/rotate 200 401 403 404 409 500',
        'POST /admin/v1/api_keys/{id}/rotate 200 401 403 404 409 500',
        'POST /playground/chat/completions 200 400 401 403 404 408 413 415 429 500 501 502 503 504 default',
        ...crud('/admin/v1/provider_keys'),
        ...crud('/admin/v1/models'),
        ...crud('/admin/v1/apikeys'),
        ...crud('/admin/v1/api_keys'),
        ...crud('/admin/v1/rate_limit_policies'),
        ...crud('/admin/v1/budgets'),
        'GET /admin/v1/budgets/status 200 401 500',
        'GET /admin/v1/budgets/{id}/status 200 401 404 500',
        ...crud('/admin/v1/observability_exporters'),
        ...crud('/admin/v1/passthrough_routes'),
      ].toSorted(),
    )
  })

  test('describes nothing that is not routed', async () => {
    const admin = openAdmin({ playground: () => new Response('ok') })
    for (const { path, method } of operationsOf(await load())) {
      const { status } = await admin.call(method, path.replace('{id}', 'unknown'), undefined, {})
      const isOpen = !path.startsWith('/admin/v1')
      expect(`${method} ${path} ${status}`).toBe(`${method} ${path} ${isOpen ? 200 : 401}`)
    }
  })

  test('has an operation id of its own for each operation, and a tag that is described', async () => {
    const document = await load()
    const operations = operationsOf(document).map(({ operation }) => operation)
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length)
    const tags = document.tags.map(({ name, description }) => {
      expect(description).not.toBe('')
      return name
    })
    expect(new Set(operations.flatMap(({ tags: used }) => used))).toEqual(new Set(tags))
  })

  test('asks for an admin key everywhere but where none is needed, and for a caller key in the playground', async () => {
    const document = await load()
    expect(document.security).toEqual([{ AdminBearer: [] }, { AdminApiKey: [] }])
    expect(document.components.securitySchemes).toMatchObject({
      AdminBearer: { type: 'http', scheme: 'bearer' },
      ProxyBearer: { type: 'http', scheme: 'bearer' },
      AdminApiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
    })
    for (const { path, operation } of operationsOf(document)) {
      if (path.startsWith('/admin/v1')) expect(operation.security).toBeUndefined()
      else expect(operation.security).toEqual(path.startsWith('/playground') ? [{ ProxyBearer: [] }] : [])
    }
  })

  test("describes the proxy's errors of the playground in the proxy's envelope", async () => {
    const playground = operationsOf(await load()).find(({ path }) => path.startsWith('/playground'))
    const schemaOf = (status: string) => playground?.operation.responses[status]?.content?.['application/json']?.schema
    const ofProxy = { $ref: '#/components/schemas/ProxyError' }
    for (const status of ['400', '401', '403', '404', '408', '413', '415', '429', '500', '502', '503', '504', 'default']) {
      expect(schemaOf(status)).toEqual(ofProxy)
    }
    // With a dialect that has no chat completions, and where no proxy is attached.
    expect(schemaOf('501')).toEqual({ anyOf: [ofProxy, { $ref: '#/components/schemas/AdminError' }] })
    for (const status of ['429', '503']) expect(playground?.operation.responses[status]?.headers).toContainKey('retry-after')
  })

  test('the playground describes every status of the table of errors that a chat completion can be answered with', () => {
    // An endpoint that was removed, one that is a WebSocket, and a caller who is not there to be answered.
    const others = ['endpoint_removed', 'websocket_upgrade_required', 'client_disconnected']
    const rows = Object.entries<ErrorRow>(ERRORS).filter(([name]) => !others.includes(name))
    const statuses = [...new Set(rows.map(([, { status }]) => status))].toSorted()
    expect(Object.keys(CALLER_ERROR_DESCRIPTIONS).map(Number)).toEqual(statuses)
  })

  test("a refusal of the proxy fits the schema of its errors, and one without its policy's name does not", async () => {
    const { schemas } = (await load()).components
    const refusal = (policy: unknown) => ({ error: { message: 'm', type: 'rate_limit_exceeded', policy } })
    expect(misfits(schemas, schemas.ProxyError, refusal({ id: 'p', name: 'n' }))).toEqual([])
    expect(misfits(schemas, schemas.ProxyError, refusal({ id: 'p' }))).not.toEqual([])
  })

  test('has a schema for each kind and its entry, and every reference leads to one', async () => {
    const document = await load()
    const { schemas } = document.components
    for (const kind of kinds) expect(schemas).toContainKeys([RESOURCES[kind].name, `${RESOURCES[kind].name}Entry`])
    expect(schemas).toContainKeys(['DeleteResponse', 'AdminError', 'HealthResponse', 'ModelStatus', 'RotateResponse'])
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, reference = '']) => reference)
    expect(references.length).toBeGreaterThan(10)
    for (const reference of references) {
      expect(reference).toStartWith('#/components/schemas/')
      expect(schemas).toContainKey(reference.slice('#/components/schemas/'.length))
    }
  })

  test('carries no leftovers of its generator', async () => {
    const document = await load()
    const text = JSON.stringify(document)
    for (const leftover of ['"$schema"', '"$id"', '"$defs"', '__schema', String(Number.MAX_SAFE_INTEGER)]) {
      expect(text.includes(leftover) ? leftover : '').toBe('')
    }
    for (const name of WRITTEN) {
      // Any optional member takes null, which is said once and not at each of them.
      expect(JSON.stringify(document.components.schemas[name]).includes('"null"')).toBe(false)
    }
  })

  test('every member of every schema is described', async () => {
    const described: string[] = []
    const undescribed: string[] = []
    const visit = (value: unknown, place: string) => {
      if (Array.isArray(value)) for (const [index, each] of value.entries()) visit(each, `${place}[${index}]`)
      if (!isRecord(value)) return
      // Without a type a schema declares nothing: it says which members of another go together.
      const declares = value.type === 'object' && isRecord(value.properties)
      for (const [name, member] of Object.entries(declares && isRecord(value.properties) ? value.properties : {})) {
        const isDescribed = isRecord(member) && typeof member.description === 'string' && member.description !== ''
        ;(isDescribed ? described : undescribed).push(`${place}.${name}`)
      }
      for (const [name, each] of Object.entries(value)) visit(each, `${place}.${name}`)
    }
    visit(await load(), '')
    expect(undescribed).toEqual([])
    for (const name of ['ProviderKeyEntry', 'ModelStatus', 'HealthResponse', 'ProxyError', 'AdminError', 'DeleteResponse']) {
      expect(described.filter(place => place.startsWith(`.components.schemas.${name}.`)).length).toBeGreaterThan(0)
    }
  })

  const fields: [string, string[]][] = [
    [
      'DirectModel',
      [
        'display_name provider model_name provider_key_id timeout stream_timeout retries',
        'rate_limit.rps rate_limit.rpm rate_limit.rph rate_limit.rpd rate_limit.tpm rate_limit.tpd rate_limit.concurrency',
        'allowed_cidrs cost.input_per_1k cost.output_per_1k',
        'background_model_check.enabled background_model_check.mode background_model_check.interval_seconds',
        'background_model_check.timeout_seconds background_model_check.prompt background_model_check.max_tokens',
        'background_model_check.stale_after_seconds background_model_check.ignore_statuses',
        'cooldown.enabled cooldown.default_seconds cooldown.max_seconds cooldown.honor_retry_after cooldown.trigger_statuses',
        'cooldown.trigger_on_timeout cooldown.trigger_on_transport',
      ],
    ],
    [
      'ModelGroup',
      [
        'display_name routing.strategy routing.targets[].model routing.targets[].weight routing.targets[].priority',
        'routing.targets[].tags routing.retries routing.max_fallbacks routing.retry_on_429 routing.fallback_on_statuses',
        'routing.when_all_unavailable routing.hash_on[].type routing.hash_on[].name timeout stream_timeout',
        'rate_limit.rps rate_limit.rpm rate_limit.rph rate_limit.rpd rate_limit.tpm rate_limit.tpd rate_limit.concurrency',
        'allowed_cidrs',
      ],
    ],
    [
      'PassthroughRoute',
      [
        'name display_name path_prefix hosts target_url preserve_host auth_mode auth_header_name anonymous_key_id source_cidrs',
        'credential_mode provider_key_id identity_header timeout_ms enabled',
      ],
    ],
    ['ApiKey', ['allowed_routes rate_limit.rps rate_limit.rpm rate_limit.tpd rate_limit.concurrency team_id user_id user_name']],
    [
      'ClassicPolicy',
      [
        'name scope scope_ref window max_requests max_tokens schedules[].timezone schedules[].days_of_week schedules[].dates',
        'schedules[].start_time schedules[].end_time',
      ],
    ],
    [
      'ConditionalPolicy',
      [
        'name limits.rps limits.concurrency group_by action schedules[].timezone conditions[].dimension conditions[].operator',
        'conditions[].value conditions[].negate conditions[].logic conditions[].children[].dimension',
        'conditions[].children[].logic conditions[].children[].children[].value',
      ],
    ],
    [
      'ModelStatus',
      [
        'id display_name kind status cooldown_until.secs_since_epoch last_checked_at.nanos_since_epoch last_check_status status_reason',
      ],
    ],
  ]
  test.each(fields)('%s has every field of the contract', async (name, expected) => {
    const { schemas } = (await load()).components
    const places = new Set<string>()
    const visit = (schema: unknown, place: string) => {
      if (!isRecord(schema)) return
      if (place !== '') places.add(place)
      visit(schema.items, `${place}[]`)
      if (Array.isArray(schema.anyOf)) for (const form of schema.anyOf) visit(form, place)
      for (const [member, inner] of Object.entries(isRecord(schema.properties) ? schema.properties : {})) {
        visit(inner, place === '' ? member : `${place}.${member}`)
      }
    }
    visit(schemas[name], '')
    expect(expected.flatMap(line => line.split(' ')).filter(place => !places.has(place))).toEqual([])
  })

  test('a kind of several forms is either of them, and each is a schema of its own', async () => {
    const { schemas } = (await load()).components
    const reference = (name: string) => ({ $ref: `#/components/schemas/${name}` })
    expect(schemas.Model?.anyOf).toEqual([reference('DirectModel'), reference('ModelGroup')])
    expect(schemas.RateLimitPolicy?.anyOf).toEqual([reference('ClassicPolicy'), reference('ConditionalPolicy')])
    for (const name of WRITTEN) expect(schemas[name]?.type).toBe('object')
  })

  test('of a credential with two spellings only the one that it reads as stands in what is read', async () => {
    const { ProviderKey, ProviderKeyEntry } = (await load()).components.schemas
    expect(JSON.stringify(ProviderKey)).toContain('"api_key"')
    expect(JSON.stringify(ProviderKeyEntry)).not.toContain('"api_key"')
  })

  test('tells the defaults that are filled in', async () => {
    const { ProviderKey } = (await load()).components.schemas
    expect(ProviderKey).toMatchObject({
      required: ['display_name'],
      properties: {
        provider: { default: '' },
        strip_headers: { default: ['authorization', 'cookie', 'set-cookie', 'x-api-key'] },
        telemetry_tags: { default: { featured: false } },
        secret: { writeOnly: true },
      },
    })
  })
})

describe('examples', () => {
  test('of requests validate against their schemas, and the gateway accepts them', async () => {
    const document = await load()
    const admin = openAdmin()
    let checked = 0
    for (const { path, method, operation } of operationsOf(document)) {
      const body = operation.requestBody?.content['application/json']
      if (!body) continue
      for (const { value } of Object.values(body.examples ?? {})) {
        checked += 1
        expectValid(document, body.schema, value)
        if (method !== 'POST' || !path.startsWith('/admin/v1')) continue
        const { id } = entryOf(await admin.call('POST', path, value))
        await admin.call('DELETE', `${path}/${id}`)
      }
    }
    // POST and PUT of eight paths, three of them of kinds with two forms or more, and the playground.
    expect(checked).toBe(25)
  })

  test('of answers validate against their schemas and show no credential', async () => {
    const document = await load()
    let checked = 0
    for (const { operation } of operationsOf(document)) {
      for (const media of Object.values(operation.responses['200']?.content ?? {})) {
        if (media.example === undefined) continue
        checked += 1
        expectValid(document, media.schema, media.example)
        expect(JSON.stringify(media.example)).not.toContain('not-used-by-vllm')
      }
    }
    expect(checked).toBeGreaterThan(20)
  })

  test('that are wrong do not validate: the schemas say something', async () => {
    const document = await load()
    const { schemas } = document.components
    const check = (name: string, value: unknown) => misfits(schemas, schemas[name], sent(value)).length === 0
    expect(check('ProviderKey', providerKey())).toBe(true)
    expect(check('ProviderKey', providerKey({ unknown: 1 }))).toBe(false)
    expect(check('Model', model('pk', { cost: { input_per_1k: 1 } }))).toBe(false)
    expect(check('Model', group(['a']))).toBe(true)
    expect(check('Model', group([]))).toBe(false)
    expect(check('Model', group(['a'], { provider: 'vllm' }))).toBe(false)
    expect(check('RateLimitPolicy', classicPolicy())).toBe(true)
    expect(check('RateLimitPolicy', classicPolicy({ limits: { rpm: 1 } }))).toBe(false)
    expect(check('RateLimitPolicy', policy({ conditions: [{ dimension: 'planet', operator: '==', value: 'x' }] }))).toBe(false)
    expect(check('Budget', budget())).toBe(true)
    expect(check('Budget', budget({ period: 'year' }))).toBe(false)
    expect(check('ObservabilityExporter', otlpExporter())).toBe(true)
    expect(check('ObservabilityExporter', s3Exporter({ headers: { a: 'b' } }))).toBe(false)
    expect(check('ApiKey', apiKey({ key_hash: 'short' }))).toBe(false)
    expect(check('ProviderKeyEntry', { id: 'x', revision: 1, value: providerKey() })).toBe(false)
  })
})

describe('rules over several members', () => {
  const ANONYMOUS = { auth_mode: 'anonymous', anonymous_key_id: 'k', source_cidrs: ['10.0.0.0/8'] }
  const preserving = (more: Record<string, unknown> = {}) =>
    passthroughRoute({
      ...{ path_prefix: undefined, target_url: undefined, preserve_host: true, hosts: ['api.example.com'] },
      ...more,
    })
  const leaf = { dimension: 'team', operator: '==', value: 'search' }
  const name = { dimension: 'model_name', operator: '~~', value: 'llama' }
  const on = (...conditions: unknown[]) => policy({ conditions })
  const window = { timezone: 'UTC', days_of_week: ['mon'], start_time: '08:00', end_time: '24:00' }
  const during = (more: Record<string, unknown>) => classicPolicy({ schedules: [{ ...window, ...more }] })
  const check = (more: Record<string, unknown>) =>
    model('pk', {
      background_model_check: { enabled: true, interval_seconds: 30, timeout_seconds: 5, stale_after_seconds: 90, ...more },
    })
  const completion = { prompt: 'Say ok.', max_tokens: 1 }
  const hashed = (...hash_on: unknown[]) => ({
    display_name: 'g',
    routing: { strategy: 'consistent_hash', targets: [{ model: 'a' }], hash_on },
  })

  const accepted: [string, string, unknown][] = [
    ['rate_limit_policies', 'tokens alone', classicPolicy({ max_requests: undefined, max_tokens: 1 })],
    ['rate_limit_policies', 'both numbers', classicPolicy({ max_tokens: 1 })],
    ['rate_limit_policies', 'a list with `in`', on({ ...leaf, operator: 'in', value: ['a', 'b'] })],
    ['rate_limit_policies', 'a pattern of a name', on({ ...name, value: 'x'.repeat(256) })],
    [
      'rate_limit_policies',
      'a pattern of a label in a group',
      on({ logic: 'or', children: [{ ...name, dimension: 'provider' }] }),
    ],
    ['rate_limit_policies', 'two dimensions', policy({ group_by: ['team', 'model'] })],
    ['rate_limit_policies', 'dates', during({ days_of_week: undefined, dates: ['2030-12-24'], end_time: '23:59' })],
    ['budgets', 'tokens alone', budget({ limit_usd: undefined, limit_tokens: 1 })],
    ['budgets', 'both limits', budget({ limit_tokens: 1 })],
    ['budgets', 'everything', budget({ scope: 'all', scope_ref: undefined })],
    ['budgets', 'a zone and marks', budget({ timezone: 'Europe/Berlin', warn_at: [95, 80], action: 'warn' })],
    ['observability_exporters', 'a collector in capitals', otlpExporter({ endpoint: 'HTTPS://Collector/v1/traces?a=b' })],
    ['observability_exporters', 'a bucket with dots at an endpoint', s3Exporter({ bucket: 'my.Usage' })],
    ['observability_exporters', 'a bucket of Amazon', s3Exporter({ endpoint: undefined, bucket: 'my-usage' })],
    ['observability_exporters', 'a folder', folderExporter()],
    ['models', 'a check of the endpoint', check({})],
    ['models', 'a check of the endpoint with a prompt', check({ mode: 'endpoint', prompt: 'x' })],
    ['models', 'a check by completion', check(completion)],
    ['models', 'a check by completion that says so', check({ mode: 'completion', ...completion })],
    ['models', 'sources of each type', hashed({ type: 'header', name: 'x' }, { type: 'client_ip' })],
    ['passthrough_routes', 'the other spelling', passthroughRoute({ name: undefined, display_name: 'up' })],
    ['passthrough_routes', 'every prefix', passthroughRoute({ path_prefix: '/' })],
    ['passthrough_routes', 'what only begins like a reserved segment', passthroughRoute({ path_prefix: '/v1beta' })],
    ['passthrough_routes', 'a reserved segment of a host', passthroughRoute({ path_prefix: '/v1', hosts: ['*.example.com'] })],
    ['passthrough_routes', 'the host that was asked for', preserving()],
    ['passthrough_routes', 'a header of its own', passthroughRoute({ auth_mode: 'header_key', auth_header_name: 'x-key' })],
    ['passthrough_routes', 'nobody in particular', passthroughRoute(ANONYMOUS)],
    [
      'passthrough_routes',
      "the caller's credential",
      passthroughRoute({ credential_mode: 'forward_client', provider_key_id: undefined }),
    ],
    ['provider_keys', 'the other spelling', providerKey({ secret: undefined, api_key: 'x' })],
    ['provider_keys', 'a base in capitals between blanks', providerKey({ api_base: ' HTTP://Host:8000/v1/ ' })],
    ['provider_keys', 'an empty base', providerKey({ api_base: '' })],
  ]
  test.each(accepted)('of %s: %s fits the schema, and the gateway takes it', async (path, _what, document) => {
    const admin = openAdmin()
    const api = await load()
    expectValid(api, api.paths[`/admin/v1/${path}`]?.post?.requestBody?.content['application/json']?.schema, sent(document))
    expect((await admin.call('POST', `/admin/v1/${path}`, document)).status).toBe(200)
  })

  const refused: [string, string, unknown][] = [
    ['rate_limit_policies', 'neither form', { name: 'p' }],
    ['rate_limit_policies', 'both forms', classicPolicy({ limits: { rpm: 1 } })],
    ['rate_limit_policies', 'a long name', policy({ name: 'x'.repeat(257) })],
    ['rate_limit_policies', 'no number', classicPolicy({ max_requests: undefined })],
    ['rate_limit_policies', 'no limit', policy({ limits: {} })],
    ['rate_limit_policies', 'a dimension twice', policy({ group_by: ['team', 'team'] })],
    ['rate_limit_policies', '`in` without a list', on({ ...leaf, operator: 'in' })],
    ['rate_limit_policies', 'a list without `in`', on({ ...leaf, value: ['a'] })],
    ['rate_limit_policies', 'a list as pattern', on({ ...name, value: ['a'] })],
    ['rate_limit_policies', 'a pattern of an id', on({ ...leaf, operator: '~~' })],
    ['rate_limit_policies', 'a pattern of an id in a group', on({ logic: 'and', children: [{ ...leaf, operator: '~*' }] })],
    ['rate_limit_policies', 'a long pattern', on({ ...name, value: 'x'.repeat(257) })],
    ['rate_limit_policies', 'days and dates', during({ dates: ['2030-12-24'] })],
    ['rate_limit_policies', 'neither days nor dates', during({ days_of_week: undefined })],
    ['rate_limit_policies', 'a start at the end of the day', during({ start_time: '24:00' })],
    ['rate_limit_policies', 'an end after the end of the day', during({ end_time: '24:01' })],
    ['budgets', 'no limit', budget({ limit_usd: undefined })],
    ['budgets', 'a limit of 0', budget({ limit_usd: 0 })],
    ['budgets', 'a team without its id', budget({ scope_ref: undefined })],
    ['budgets', 'everything of a team', budget({ scope: 'all' })],
    ['budgets', 'a mark above the limit', budget({ warn_at: [101] })],
    ['budgets', 'a part of a token', budget({ limit_tokens: 1.5 })],
    ['observability_exporters', 'a collector with a fragment', otlpExporter({ endpoint: 'http://c/v1/traces#a' })],
    ['observability_exporters', 'a collector that is no URL', otlpExporter({ endpoint: 'c:4318' })],
    ['observability_exporters', 'a bucket with dots at Amazon', s3Exporter({ endpoint: undefined, bucket: 'my.usage' })],
    ['observability_exporters', 'a cloud', { name: 'e', kind: 'datadog' }],
    ['observability_exporters', 'a relative folder', folderExporter({ endpoint: 'file://logs' })],
    ['observability_exporters', 'a credential for a folder', folderExporter({ credential_ref: 'c' })],
    ['models', 'a completion without a bound', check({ prompt: 'x' })],
    ['models', 'a completion that asks nothing', check({ mode: 'completion', max_tokens: 1 })],
    ['models', 'a header without a name', hashed({ type: 'header' })],
    ['models', 'an address with a name', hashed({ type: 'client_ip', name: 'x' })],
    [
      'models',
      'a source without its strategy',
      { display_name: 'g', routing: { ...hashed({ type: 'api_key' }).routing, strategy: 'failover' } },
    ],
    [
      'models',
      'a source with the strategy left out',
      { display_name: 'g', routing: { ...hashed({ type: 'api_key' }).routing, strategy: undefined } },
    ],
    ['passthrough_routes', 'both spellings', passthroughRoute({ display_name: 'up' })],
    ['passthrough_routes', 'no name', passthroughRoute({ name: undefined })],
    ['passthrough_routes', 'nothing to match', passthroughRoute({ path_prefix: undefined })],
    ['passthrough_routes', 'a reserved segment', passthroughRoute({ path_prefix: '/v1' })],
    ['passthrough_routes', 'what is below a reserved segment', passthroughRoute({ path_prefix: '/admin/x' })],
    ['passthrough_routes', 'no target', passthroughRoute({ target_url: undefined })],
    ['passthrough_routes', 'two targets', passthroughRoute({ hosts: ['a.example.com'], preserve_host: true })],
    ['passthrough_routes', 'the host that was asked for, of any', preserving({ hosts: undefined, path_prefix: '/up' })],
    ['passthrough_routes', 'a header that nobody reads', passthroughRoute({ auth_header_name: 'x-key' })],
    ['passthrough_routes', 'no header to read', passthroughRoute({ auth_mode: 'header_key' })],
    ['passthrough_routes', 'nobody from everywhere', passthroughRoute({ ...ANONYMOUS, source_cidrs: undefined })],
    ['passthrough_routes', 'nobody from nowhere', passthroughRoute({ ...ANONYMOUS, source_cidrs: [] })],
    ['passthrough_routes', 'nobody with the rights of nobody', passthroughRoute({ ...ANONYMOUS, anonymous_key_id: undefined })],
    ['passthrough_routes', 'a key for callers that show theirs', passthroughRoute({ anonymous_key_id: 'k' })],
    ['passthrough_routes', 'no credential', passthroughRoute({ provider_key_id: undefined })],
    ['passthrough_routes', 'a credential too many', passthroughRoute({ credential_mode: 'forward_client' })],
    ['passthrough_routes', 'a header in capitals', passthroughRoute({ identity_header: 'X-User' })],
    ['passthrough_routes', 'a target with a query', passthroughRoute({ target_url: 'https://h/v1?a=b' })],
    ['provider_keys', 'both spellings', providerKey({ api_key: 'x' })],
    ['provider_keys', 'no credential', providerKey({ secret: undefined })],
    ['provider_keys', 'a base without a scheme', providerKey({ api_base: 'host:8000/v1' })],
    ['provider_keys', 'a base with a query', providerKey({ api_base: 'http://host/v1?a=b' })],
  ]
  test.each(refused)('of %s: %s does not fit the schema, as the gateway refuses it', async (path, _what, document) => {
    const admin = openAdmin()
    const api = await load()
    const schema = api.paths[`/admin/v1/${path}`]?.post?.requestBody?.content['application/json']?.schema
    expect(misfits(api.components.schemas, schema, sent(document))).not.toEqual([])
    expect((await admin.call('POST', `/admin/v1/${path}`, document)).status).toBe(400)
  })
})

const SCHEDULES = [
  { timezone: 'Europe/Berlin', days_of_week: ['sat', 'sun'], start_time: '22:00', end_time: '06:00' },
  { timezone: 'UTC', dates: ['2030-12-24'], start_time: '00:00', end_time: '24:00' },
]
const COMPARISON = { dimension: 'model_name', operator: '~*', value: '-70b$', negate: true }
const CONDITIONS = [COMPARISON, { logic: 'or', children: [{ logic: 'and', negate: true, children: [COMPARISON] }] }]

describe('answers of the gateway', () => {
  test('validate against the schemas that describe them', async () => {
    const document = await load()
    const admin = openAdmin()
    const schemaOf = (method: string, path: string, status: number) =>
      document.paths[path]?.[method.toLowerCase()]?.responses[status]?.content?.['application/json']?.schema
    const check = (answer: Answer, method: string, path: string) => {
      const schema = schemaOf(method, path, answer.status)
      expect(`${method} ${path} ${answer.status} ${schema === undefined ? 'undescribed' : 'described'}`).toEndWith(' described')
      expectValid(document, schema, answer.body)
      return answer
    }
    const full: [string, Record<string, unknown>][] = [
      ['provider_keys', providerKey({ request: { default_headers: { a: 'b' } }, response: {}, tls: {} })],
      ['models', model('pk', { cost: { input_per_1k: 1, output_per_1k: 2 }, timeout: 0, retries: 1 })],
      ['models', group([{ model: 'a', weight: 0, priority: -1, tags: ['eu'] }], { rate_limit: { rpm: 1 }, timeout: 5 })],
      ['rate_limit_policies', classicPolicy({ schedules: SCHEDULES })],
      [
        'rate_limit_policies',
        policy({ conditions: CONDITIONS, group_by: ['team', 'model'], action: 'reject', schedules: SCHEDULES }),
      ],
      ['budgets', budget({ limit_tokens: 5, timezone: 'Asia/Tokyo', action: 'warn', warn_at: [50] })],
      ['observability_exporters', otlpExporter({ headers: { a: 'b' }, sample_rate: 0.5, content_mode: 'full' })],
      ['observability_exporters', s3Exporter({ region: 'eu-central-1' })],
      ['observability_exporters', folderExporter({ bucket: 'b', prefix: 'p', enabled: false })],
      ['passthrough_routes', passthroughRoute({ hosts: ['A.example.com'], source_cidrs: [], timeout_ms: 5 })],
      ['apikeys', apiKey({ allowed_routes: ['up'], disabled: true, expires_at: '2031-01-01T00:00:00Z', team_id: 't' })],
    ]
    for (const [kind, value] of full) {
      const path = `/admin/v1/${kind}`
      const single = `${path}/{id}`
      const { id } = entryOf(check(await admin.call('POST', path, value), 'POST', path))
      check(await admin.call('POST', path, value), 'POST', path)
      check(await admin.call('POST', path, {}), 'POST', path)
      check(await admin.call('POST', path, value, {}), 'POST', path)
      check(await admin.call('GET', path), 'GET', path)
      check(await admin.call('GET', `${path}/${id}`), 'GET', single)
      check(await admin.call('PUT', `${path}/${id}`, value), 'PUT', single)
      check(await admin.call('GET', '/admin/v1/health'), 'GET', '/admin/v1/health')
      check(await admin.call('GET', '/admin/v1/models/status'), 'GET', '/admin/v1/models/status')
      if (kind === 'apikeys') check(await admin.call('POST', `${path}/${id}/rotate`), 'POST', `${single}/rotate`)
      check(await admin.call('DELETE', `${path}/${id}`), 'DELETE', single)
      check(await admin.call('DELETE', `${path}/${id}`), 'DELETE', single)
    }
  })
})

describe('openApiDocument', () => {
  test('is made of the routes it is given', () => {
    const routes = resourceRoutes({ store: openMemoryStore(), log: silentLog, bodyTimeoutMs: 1 })
    const [first] = routes
    if (!first) throw new Error('expected routes')
    const document = openApiDocument([first])
    expect(Object.keys(document.paths)).toEqual([first.path])
    expect(document.tags.map(({ name }) => name)).toEqual([first.describe.tag])
  })
})

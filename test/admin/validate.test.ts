import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { apiKey, messageOf, model, openAdmin, providerKey } from './harness.ts'

/** A value that stands where a credential could have been pasted; no message may repeat it. */
const PASTED = 'sk-pasted-by-mistake'

const CERTIFICATE = readFileSync(join(import.meta.dir, '../fixtures/tls/server.crt'), 'utf8')

async function refusal(path: string, document: unknown): Promise<string> {
  const admin = openAdmin()
  const answer = await admin.call('POST', `/admin/v1/${path}`, document)
  const message = messageOf(answer)
  expect({ status: answer.status, message }).toEqual({ status: 400, message })
  expect(message).not.toContain(PASTED)
  expect(admin.lines.join('\n')).not.toContain(PASTED)
  expect((await admin.call('GET', `/admin/v1/${path}`)).body).toEqual([])
  return message
}

describe('provider keys', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ['no name', { display_name: undefined }, 'schema validation failed at /display_name: is required'],
    ['an empty name', { display_name: '' }, 'schema validation failed at /display_name: must not be empty'],
    ['a name that is a number', { display_name: 5 }, 'schema validation failed at /display_name: must be a string, not a number'],
    ['a null name', { display_name: null }, 'schema validation failed at /display_name: must be a string, not null'],
    ['no credential', { secret: undefined }, 'schema validation failed at /secret: is required'],
    ['a null credential', { secret: null }, 'schema validation failed at /secret: is required'],
    ['an empty credential', { secret: '' }, 'schema validation failed at /secret: must not be empty'],
    ['both spellings of the credential', { secret: PASTED, api_key: PASTED }, 'duplicate field'],
    ['an unknown adapter', { adapter: PASTED }, 'schema validation failed at /adapter: must be one of "openai", "anthropic"'],
    [
      'an api_base with user info',
      { api_base: `http://u:${PASTED}@host/v1` },
      'schema validation failed at /api_base: must not carry user info',
    ],
    [
      'an api_base without a scheme',
      { api_base: `${PASTED}:8000/v1` },
      'schema validation failed at /api_base: must start with http:// or https://',
    ],
    [
      'an api_base with a query',
      { api_base: `http://host/v1?key=${PASTED}` },
      'schema validation failed at /api_base: must not carry a query',
    ],
    [
      'an api_base with a fragment',
      { api_base: `http://host/v1#${PASTED}` },
      'schema validation failed at /api_base: must not carry a query or a fragment',
    ],
    [
      'an api_base without a host',
      { api_base: 'http:///v1' },
      'schema validation failed at /api_base: must name a host behind http:// or https://',
    ],
    ['an api_base with port 0', { api_base: 'http://h:0/v1' }, 'schema validation failed at /api_base: must not name port 0'],
    [
      'an api_base with a line break, which the URL parser would drop',
      { api_base: 'http://h/\nv1' },
      'schema validation failed at /api_base: must not hold blanks, control characters or backslashes',
    ],
    [
      'an authority that is no certificate',
      { tls: { ca_cert: PASTED } },
      'schema validation failed at /tls/ca_cert: holds no PEM certificate',
    ],
    [
      'an authority that is damaged',
      { tls: { ca_cert: `${CERTIFICATE}${CERTIFICATE.replace(/\n.{20}/, '\nAAAA')}` } },
      'schema validation failed at /tls/ca_cert: certificate 2 is damaged',
    ],
    [
      'a private key beside the authority',
      { tls: { ca_cert: `${CERTIFICATE}-----BEGIN PRIVATE KEY-----\n${PASTED}\n-----END PRIVATE KEY-----\n` } },
      'schema validation failed at /tls/ca_cert: holds something other than certificates',
    ],
    ['a credential of blanks', { secret: ' \t ' }, 'schema validation failed at /secret: must not be blank'],
    ['a credential with a NUL', { secret: `${PASTED}\u0000x` }, 'schema validation failed at /secret: must hold only characters'],
    [
      'a credential with a line break',
      { secret: `${PASTED}\nx` },
      'schema validation failed at /secret: must hold only characters',
    ],
    [
      'a credential beyond Latin-1',
      { secret: `${PASTED}日本` },
      'schema validation failed at /secret: must hold only characters',
    ],
    [
      'the other spelling with a control character',
      { secret: undefined, api_key: `${PASTED}\u007f` },
      'schema validation failed at /api_key: must hold only characters',
    ],
    [
      'the mask between blanks on creation',
      { secret: ' *** ' },
      'schema validation failed at /secret: *** keeps a stored value, and here is none',
    ],
    [
      'the mask between blanks in a header',
      { request: { default_headers: { 'x-a': ' *** ' } } },
      'schema validation failed at /request/default_headers/x-a: *** keeps a stored value, and here is none',
    ],
    [
      'a header line in place of a name',
      { request: { default_headers: { [`Authorization: Bearer ${PASTED}`]: 'x' } } },
      'schema validation failed at /request/default_headers: the name of a header has only letters, digits',
    ],
    [
      'a header value with a line break at its end',
      { request: { default_headers: { 'x-a': `${PASTED}\n` } } },
      'schema validation failed at /request/default_headers/x-a: must hold only characters',
    ],
    [
      'a header value beyond Latin-1',
      { request: { default_headers: { 'x-a': `${PASTED}€` } } },
      'schema validation failed at /request/default_headers/x-a: must hold only characters',
    ],
    ['a long label', { provider: 'x'.repeat(65) }, 'schema validation failed at /provider: must be at most 64 characters long'],
    ['an unknown member', { secrt: PASTED }, 'unknown field `secrt` (did you mean `secret`?), expected one of `display_name`'],
    [
      'an unknown member further in',
      { response: { stream_usag: 'off' } },
      'schema validation failed at /response: unknown field `stream_usag` (did you mean `stream_usage`?)',
    ],
    [
      'a wrong type further in',
      { tls: { verify: PASTED } },
      'schema validation failed at /tls/verify: must be true or false, not a string',
    ],
    [
      'a header without a name',
      { request: { default_headers: { '': PASTED } } },
      'schema validation failed at /request/default_headers/: member names must not be empty',
    ],
    [
      'a header value that is a list',
      { request: { default_headers: { 'x/y~z': [PASTED] } } },
      'schema validation failed at /request/default_headers/x~1y~0z: must be a string, not an array',
    ],
    [
      'the mask on creation',
      { secret: '***' },
      'schema validation failed at /secret: *** keeps a stored value, and here is none',
    ],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('provider_keys', providerKey(more))).toContain(expected)
  })
})

describe('models', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ['half a cost', { cost: { input_per_1k: 0.1 } }, 'schema validation failed at /cost/output_per_1k: is required'],
    ['the other half', { cost: { output_per_1k: 0.1 } }, 'schema validation failed at /cost/input_per_1k: is required'],
    [
      'a negative price',
      { cost: { input_per_1k: -1, output_per_1k: 0 } },
      'schema validation failed at /cost/input_per_1k: must be at least 0',
    ],
    [
      'a price as text',
      { cost: { input_per_1k: '1', output_per_1k: 0 } },
      'schema validation failed at /cost/input_per_1k: must be a number, not a string',
    ],
    ['an upper-case label', { provider: 'VLLM' }, 'schema validation failed at /provider: must be 1 to 64 of a-z'],
    ['no upstream model', { model_name: undefined }, 'schema validation failed at /model_name: is required'],
    ['half a millisecond', { timeout: 0.5 }, 'schema validation failed at /timeout: must be a whole number'],
    ['negative retries', { retries: -1 }, 'schema validation failed at /retries: must be at least 0'],
    ['a blank network', { allowed_cidrs: ['10.0.0.0/8', ''] }, 'schema validation failed at /allowed_cidrs/1: must not be empty'],
    ['an unknown member', { modelname: PASTED }, 'unknown field `modelname` (did you mean `model_name`?), expected one of'],
    ['a limit that would not be kept', { rate_limit: { rpm: 1 } }, '`rate_limit` is not supported by this version'],
    ['a check that would not run', { background_model_check: {} }, '`background_model_check` is not supported by this version'],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('models', model('pk', more))).toContain(expected)
  })

  test.each(['routing', 'ensemble', 'semantic'])(
    'a %s model is refused as a kind, and nothing is said about direct members',
    async kind => {
      const message = await refusal('models', { display_name: 'group', [kind]: { targets: [{ model: PASTED }] } })
      expect(message).toBe(`${kind} models are not supported by this version: leave out \`${kind}\``)
    },
  )

  test('a member of later versions that is null counts as absent', async () => {
    const { status } = await openAdmin().call(
      'POST',
      '/admin/v1/models',
      model('pk', { routing: null, cooldown: null, cost: null }),
    )
    expect(status).toBe(200)
  })
})

describe('caller keys', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    [
      'a plaintext in place of its hash',
      { key_hash: PASTED },
      'schema validation failed at /key_hash: must be 64 hexadecimal digits',
    ],
    ['63 digits', { key_hash: 'a'.repeat(63) }, 'schema validation failed at /key_hash: must be 64 hexadecimal digits'],
    [
      'a hash with a line break',
      { key_hash: `${'a'.repeat(64)}\n` },
      'schema validation failed at /key_hash: must be 64 hexadecimal digits',
    ],
    ['no hash', { key_hash: undefined }, 'malformed ApiKey payload: schema validation failed at /key_hash: is required'],
    [
      'no list of models',
      { allowed_models: undefined },
      'malformed ApiKey payload: schema validation failed at /allowed_models: is required',
    ],
    [
      'models as text',
      { allowed_models: PASTED },
      'malformed ApiKey payload: schema validation failed at /allowed_models: must be an array, not a string',
    ],
    [
      'a member of hosted deployments',
      { max_budget_usd: 5 },
      'malformed ApiKey payload: unknown field `max_budget_usd`, expected one of `key_hash`, `allowed_models`',
    ],
    ['a list of tools', { allowed_tools: [] }, 'malformed ApiKey payload: unknown field `allowed_tools`'],
    [
      'a time without offset',
      { expires_at: '2030-01-01T00:00:00' },
      'schema validation failed at /expires_at: must be a time of RFC 3339',
    ],
    [
      'a day that does not exist',
      { expires_at: '2030-02-30T00:00:00Z' },
      'schema validation failed at /expires_at: must be a time of RFC 3339',
    ],
    ['a limit that would not be kept', { rate_limit: { rpm: 1 } }, '`rate_limit` is not supported by this version'],
    ['an identity that would not be checked', { jwt_subject: PASTED }, '`jwt_subject` is not supported by this version'],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('apikeys', apiKey(more))).toContain(expected)
  })
})

describe('messages', () => {
  test('name all problems at once, rules over several members included', async () => {
    const message = await refusal('provider_keys', { provider: 5, adaptr: 'openai', response: { zz: 1, yy: 2 } })
    const expected = [
      'failed at /display_name: is required',
      'failed at /provider: must be a string',
      'unknown field `adaptr`',
      'failed at /response: unknown field(s): `zz`, `yy`, expected one of `stream_done_marker`',
      'failed at /secret: is required',
    ]
    for (const each of expected) expect(message).toContain(each)
    const alone = await refusal('provider_keys', { display_name: 'a', adaptr: 'openai' })
    expect(alone).toBe(
      'schema validation failed at : unknown field `adaptr` (did you mean `adapter`?), expected one of `display_name`, `provider`, `adapter`, `secret`, `api_key`, `api_base`, `strip_headers`, `request`, `response`, `tls`, `telemetry_tags`; schema validation failed at /secret: is required (a placeholder where the server needs no key)',
    )
  })

  test('name members of later versions together with what else is wrong', async () => {
    const message = await refusal('models', model('pk', { rate_limit: { rpm: 1 }, cooldown: {}, retries: -1, modelname: PASTED }))
    expect(message.split('; ')).toEqual([
      '`rate_limit` is not supported by this version: leave it out',
      '`cooldown` is not supported by this version: leave it out',
      expect.stringContaining('unknown field `modelname` (did you mean `model_name`?), expected one of'),
      'schema validation failed at /retries: must be at least 0',
    ])
    const group = await refusal('models', { display_name: 'g', routing: {}, rate_limit: {}, timout: 1, retries: -1 })
    expect(group.split('; ')).toEqual([
      'routing models are not supported by this version: leave out `routing`',
      '`rate_limit` is not supported by this version: leave it out',
      expect.stringContaining('unknown field `timout`'),
      'schema validation failed at /retries: must be at least 0',
    ])
  })

  test('name several unknown members of one object in one sentence, the known ones once', async () => {
    const message = await refusal('apikeys', apiKey({ max_budget_usd: 5, disable: true }))
    expect(message).toBe(
      'malformed ApiKey payload: unknown field(s): `max_budget_usd`, `disable` (did you mean `disabled`?), expected one of `key_hash`, `allowed_models`, `display_name`, `expires_at`, `disabled`, `team_id`, `user_id`, `user_name`',
    )
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`zz${i}`, 1]))
    expect(await refusal('apikeys', apiKey(many))).toContain('`zz19`, and 30 more, expected one of')
  })

  test('tell the rules of writes together with those of the schema', async () => {
    const request = { default_headers: { 'x-a': `${PASTED}\r\nx-b: 1` } }
    const message = await refusal(
      'provider_keys',
      providerKey({ provider: 5, secret: `${PASTED}\u0000`, request, tls: { ca_cert: PASTED } }),
    )
    for (const place of ['/provider', '/secret', '/request/default_headers/x-a', '/tls/ca_cert']) {
      expect(message).toContain(`schema validation failed at ${place}: `)
    }
  })

  test('escape control characters of member names and cut long ones', async () => {
    const message = await refusal('models', model('pk', { 'a\u0000\n': 1, ['n'.repeat(1000)]: 2 }))
    expect(message).toContain('unknown field(s): `a\\u0000\\u000a`, ')
    expect(message).toContain(`, \`${'n'.repeat(255)}…\`, expected one of`)
  })

  test('list twenty problems and count the rest', async () => {
    const allowed_cidrs = Array.from({ length: 50 }, () => '')
    const message = await refusal('models', model('pk', { allowed_cidrs }))
    expect(message.split('; ')).toHaveLength(21)
    expect(message).toEndWith('; and 30 more')
  })
})

import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  apiKey,
  budget,
  classicPolicy,
  group,
  messageOf,
  model,
  openAdmin,
  passthroughRoute,
  policy,
  providerKey,
} from './harness.ts'

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

const check = (more: Record<string, unknown> = {}) => ({
  enabled: true,
  interval_seconds: 30,
  timeout_seconds: 5,
  stale_after_seconds: 90,
  ...more,
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
    ['a mark that would have no effect', { embedding: { dimensions: 8 } }, '`embedding` is not supported by this version'],
    ['a limit that is no number', { rate_limit: { rpm: '1' } }, 'failed at /rate_limit/rpm: must be a number, not a string'],
    ['a negative limit', { rate_limit: { concurrency: -1 } }, 'failed at /rate_limit/concurrency: must be at least 0'],
    ['half a token', { rate_limit: { tpm: 0.5 } }, 'failed at /rate_limit/tpm: must be a whole number'],
    [
      'a window that there is not',
      { rate_limit: { tph: 1 } },
      'failed at /rate_limit: unknown field `tph` (did you mean `rph`?)',
    ],
    ['a cooldown of a word', { cooldown: { default_seconds: 'long' } }, 'failed at /cooldown/default_seconds: must be a number'],
    ['a cooldown that ends at once', { cooldown: { max_seconds: 0 } }, 'failed at /cooldown/max_seconds: must be at least 1'],
    [
      'a status that there is not',
      { cooldown: { trigger_statuses: [500, 600] } },
      'failed at /cooldown/trigger_statuses/1: must be at most 599',
    ],
    [
      'a check without numbers',
      { background_model_check: {} },
      'failed at /background_model_check/interval_seconds: is required',
    ],
    ['a check too often', { background_model_check: check({ interval_seconds: 4 }) }, '/interval_seconds: must be at least 5'],
    ['a check without time', { background_model_check: check({ timeout_seconds: 0 }) }, '/timeout_seconds: must be at least 1'],
    [
      'a check by completion that asks nothing',
      { background_model_check: check({ mode: 'completion' }) },
      'failed at /background_model_check/prompt: is required where `mode` is `completion`; schema validation failed at /background_model_check/max_tokens: is required where',
    ],
    [
      'a check with a prompt and no bound',
      { background_model_check: check({ prompt: 'Say ok.' }) },
      'failed at /background_model_check/max_tokens: is required where `mode` is `completion`',
    ],
    [
      'a check of another kind',
      { background_model_check: check({ mode: PASTED }) },
      '/mode: must be one of "endpoint", "completion"',
    ],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('models', model('pk', more))).toContain(expected)
  })

  test.each(['ensemble', 'semantic'])('a %s model is refused as a kind, and nothing is said about direct members', async kind => {
    const message = await refusal('models', { display_name: 'group', [kind]: { targets: [{ model: PASTED }] } })
    expect(message).toBe(`${kind} models are not supported by this version: leave out \`${kind}\``)
  })

  test('a member of later versions that is null counts as absent', async () => {
    const { status } = await openAdmin().call(
      'POST',
      '/admin/v1/models',
      model('pk', { routing: null, ensemble: null, embedding: null, cooldown: null, cost: null }),
    )
    expect(status).toBe(200)
  })
})

describe('model groups', () => {
  test.each(['background_model_check', 'cooldown', 'embedding', 'retries', 'auto_prompt_caching', 'cost'])(
    'the knob %s is not accepted, in the very words that clients look for',
    async knob => {
      expect(await refusal('models', group(['a'], { [knob]: { x: PASTED } }))).toBe(`\`${knob}\` not accepted on a model group`)
    },
  )

  test.each(['provider', 'model_name', 'provider_key_id'])('%s and routing together are refused, both named', async member => {
    const message = await refusal('models', group(['a'], { [member]: 'x' }))
    expect(message).toBe(`\`${member}\` belongs to a direct model and \`routing\` to a model group: leave out one of the two`)
  })

  test('a knob is told beside what else is wrong', async () => {
    const message = await refusal('models', group([], { retries: 1, timout: 5 }))
    expect(message.split('; ')).toEqual([
      '`retries` not accepted on a model group',
      'schema validation failed at : unknown field `timout` (did you mean `timeout`?), expected one of `display_name`, `routing`, `timeout`, `stream_timeout`, `rate_limit`, `allowed_cidrs`',
      'schema validation failed at /routing/targets: must name at least one target',
    ])
  })

  const routing = (more: Record<string, unknown>) => ({ display_name: 'g', routing: { targets: [{ model: 'a' }], ...more } })
  const cases: [string, Record<string, unknown>, string][] = [
    ['no targets', routing({ targets: undefined }), 'failed at /routing/targets: is required'],
    ['zero targets', routing({ targets: [] }), 'failed at /routing/targets: must name at least one target'],
    ['a target without a model', routing({ targets: [{}] }), 'failed at /routing/targets/0/model: is required'],
    ['a target that is a name', routing({ targets: ['a'] }), 'failed at /routing/targets/0: must be an object, not a string'],
    ['an empty target', routing({ targets: [{ model: '' }] }), 'failed at /routing/targets/0/model: must not be empty'],
    ['a negative weight', routing({ targets: [{ model: 'a', weight: -1 }] }), '/routing/targets/0/weight: must be at least 0'],
    ['half a weight', routing({ targets: [{ model: 'a', weight: 0.5 }] }), '/routing/targets/0/weight: must be a whole number'],
    ['half a priority', routing({ targets: [{ model: 'a', priority: 0.5 }] }), '/targets/0/priority: must be a whole number'],
    ['an empty tag', routing({ targets: [{ model: 'a', tags: [''] }] }), '/routing/targets/0/tags/0: must not be empty'],
    [
      'a typo in a target',
      routing({ targets: [{ model: 'a', wieght: 1 }] }),
      'at /routing/targets/0: unknown field `wieght` (did you mean `weight`?)',
    ],
    [
      'a strategy that there is not',
      routing({ strategy: PASTED }),
      '/routing/strategy: must be one of "failover", "round_robin", ',
    ],
    ['a success as a reason to go on', routing({ fallback_on_statuses: [200] }), '/fallback_on_statuses/0: must be at least 400'],
    ['another end', routing({ when_all_unavailable: 'wait' }), '/when_all_unavailable: must be one of "fail", "try_anyway"'],
    ['negative fallbacks', routing({ max_fallbacks: -1 }), '/routing/max_fallbacks: must be at least 0'],
    ['a hash source of another kind', hashOn({ type: 'body' }), '/routing/hash_on/0/type: must be one of "header", "cookie"'],
    ['a header without its name', hashOn({ type: 'header' }), '/routing/hash_on/0/name: is required with `type` `header`'],
    ['a cookie without its name', hashOn({ type: 'cookie' }), '/routing/hash_on/0/name: is required with `type` `cookie`'],
    ['an address with a name', hashOn({ type: 'client_ip', name: 'x' }), '/routing/hash_on/0/name: has no meaning with'],
    [
      'a header that none can be',
      hashOn({ type: 'header', name: 'bad name' }),
      '/routing/hash_on/0/name: is no name that a header',
    ],
    ['a cookie that none can be', hashOn({ type: 'cookie', name: 's;x' }), '/routing/hash_on/0/name: is no name that a cookie'],
    ['no hash source', hashOn(), '/routing/hash_on: must name at least one source'],
    [
      'a hash source for another strategy',
      routing({ hash_on: [{ type: 'api_key' }] }),
      '/routing/hash_on: has no meaning without',
    ],
    [
      'an unknown member of routing',
      routing({ retry_on_492: true }),
      'at /routing: unknown field `retry_on_492` (did you mean `retry_on_429`?)',
    ],
  ]
  function hashOn(...hash_on: unknown[]) {
    return routing({ strategy: 'consistent_hash', hash_on })
  }
  test.each(cases)('%s is refused by place and rule', async (_name, document, expected) => {
    expect(await refusal('models', document)).toContain(expected)
  })

  test.each(['ensemble', 'semantic'])('routing and %s together are refused as what is not supported', async kind => {
    expect(await refusal('models', group(['a'], { [kind]: {} }))).toBe(
      `${kind} models are not supported by this version: leave out \`${kind}\``,
    )
  })
})

describe('rate-limit policies', () => {
  const team = { dimension: 'team', operator: '==', value: 'search' }
  const name = { dimension: 'model_name', operator: '~~', value: 'llama' }
  const on = (...conditions: unknown[]) => policy({ conditions })
  const schedule = (more: Record<string, unknown>) =>
    policy({ schedules: [{ timezone: 'Europe/Berlin', days_of_week: ['sat'], start_time: '08:00', end_time: '24:00', ...more }] })
  const nested = (levels: number): unknown => (levels === 1 ? team : { logic: 'and', children: [nested(levels - 1)] })

  const cases: [string, Record<string, unknown>, string][] = [
    ['no name', policy({ name: undefined }), 'failed at /name: is required'],
    ['an empty name', policy({ name: '' }), 'failed at /name: must not be empty'],
    ['a name of 257 characters', policy({ name: 'x'.repeat(257) }), 'failed at /name: must be at most 256 characters long'],
    ['a long name in the classic form', classicPolicy({ name: 'x'.repeat(257) }), '/name: must be at most 256 characters long'],
    [
      'a typo in the classic form',
      classicPolicy({ max_token: 1 }),
      'unknown field `max_token` (did you mean `max_tokens`?), expected one of `name`, `scope`, `scope_ref`, `window`, `max_requests`, `max_tokens`, `schedules`',
    ],
    ['half a classic form', { name: 'p', max_requests: 1 }, 'failed at /scope: is required'],
    ['half a conditional form', { name: 'p', group_by: ['team'] }, 'failed at /limits: is required'],
    [
      'another scope',
      classicPolicy({ scope: 'planet' }),
      'failed at /scope: must be one of "api_key", "model", "team", "member"',
    ],
    ['nothing that the scope is of', classicPolicy({ scope_ref: '' }), 'failed at /scope_ref: must not be empty'],
    ['another window', classicPolicy({ window: 'week' }), 'failed at /window: must be one of "second", "minute", "hour", "day"'],
    ['no limit', classicPolicy({ max_requests: undefined }), 'at least one of `max_requests` and `max_tokens` is required'],
    ['a limit of 0', classicPolicy({ max_requests: 0 }), 'failed at /max_requests: must be at least 1'],
    ['a token limit of 0', classicPolicy({ max_tokens: 0 }), 'failed at /max_tokens: must be at least 1'],
    ['an empty limit object', policy({ limits: {} }), 'failed at /limits: must set at least one limit'],
    ['limits that are null', policy({ limits: { rpm: null } }), 'failed at /limits: must set at least one limit'],
    ['another action', policy({ action: 'log' }), 'failed at /action: must be "reject"'],
    ['another dimension to group by', policy({ group_by: ['model_name'] }), 'failed at /group_by/0: must be one of "team", '],
    ['a dimension twice', policy({ group_by: ['team', 'team'] }), 'failed at /group_by: must not name one twice'],
    ['a condition that is text', on(PASTED), 'failed at /conditions/0: must be an object'],
    ['an empty condition', on({}), 'failed at /conditions/0/dimension: is required'],
    ['another operator', on({ ...team, operator: '!=' }), '/conditions/0/operator: must be one of "==", "~=", "~~", "~*", "in"'],
    ['no operator', on({ ...team, operator: undefined }), 'failed at /conditions/0/operator: is required'],
    ['no value', on({ ...team, value: undefined }), 'failed at /conditions/0/value: is required'],
    ['a number as value', on(team, { ...team, value: 5 }), 'failed at /conditions/1/value: must be a string or an array'],
    [
      'a number in a list',
      on({ ...team, operator: 'in', value: ['a', 5] }),
      '/conditions/0/value/1: must be a string, not a number',
    ],
    ['an empty list', on({ ...team, operator: 'in', value: [] }), 'failed at /conditions/0/value: must not be empty'],
    [
      'a list of 65',
      on({ ...team, operator: 'in', value: Array.from({ length: 65 }, String) }),
      'failed at /conditions/0/value: must have at most 64 entries',
    ],
    ['a list without `in`', on({ ...team, value: ['a'] }), '/conditions/0/value: must be one string with the operator `==`'],
    [
      '`in` without a list',
      on({ ...team, operator: 'in' }),
      '/conditions/0/value: must be a list of strings with the operator `in`',
    ],
    [
      'a typo in a comparison',
      on({ ...team, negated: true }),
      'at /conditions/0: unknown field `negated` (did you mean `negate`?)',
    ],
    [
      'a mistake inside a group',
      on(team, { logic: 'or', children: [team, { ...team, dimension: 'planet' }] }),
      'failed at /conditions/1/children/1/dimension: must be one of "team", ',
    ],
    [
      'a typo in a group',
      on({ logic: 'or', childs: [team] }),
      'at /conditions/0: unknown field `childs`, expected one of `logic`, `children`',
    ],
    ['a group of nothing', on({ logic: 'or', children: [] }), 'failed at /conditions/0/children: must not be empty'],
    ['another logic', on({ logic: 'xor', children: [team] }), 'failed at /conditions/0/logic: must be one of "and", "or"'],
    [
      '17 comparisons',
      on({ logic: 'or', children: Array(9).fill(team) }, ...Array(8).fill(team)),
      'at most 16 comparisons, not 17',
    ],
    ['a pattern on ids', on({ ...team, operator: '~~' }), '/conditions/0/operator: regular expressions are for `model_name` and'],
    [
      'a pattern that is none',
      on({ ...name, value: `(${PASTED}` }),
      'failed at /conditions/0/value: is no regular expression of RE2',
    ],
    [
      'a pattern that repetitions make too large',
      on({ ...name, value: 'x{0,999}y{0,999}' }),
      '/value: is too large a regular expression',
    ],
    ['a look-ahead', on({ ...name, value: '(?=a)' }), 'failed at /conditions/0/value: is no regular expression of RE2'],
    ['a back reference', on({ ...name, value: '(a)\\1' }), 'failed at /conditions/0/value: is no regular expression of RE2'],
    [
      'a pattern that would unroll',
      on({ ...name, value: '((a{100}){100}){100}' }),
      '/conditions/0/value: is no regular expression',
    ],
    ['257 bytes', on({ ...name, value: 'é'.repeat(128) + 'x' }), 'failed at /conditions/0/value: must be at most 256 bytes long'],
    [
      'a time zone that there is not',
      schedule({ timezone: 'Mars/Phobos' }),
      '/schedules/0/timezone: must be a time zone of the IANA',
    ],
    ['an offset as zone', schedule({ timezone: '+02:00' }), '/schedules/0/timezone: must be a time zone of the IANA database'],
    ['no zone', schedule({ timezone: undefined }), 'failed at /schedules/0/timezone: is required'],
    [
      'a time of day that there is not',
      schedule({ start_time: '24:00' }),
      '/schedules/0/start_time: must be a time such as 08:30',
    ],
    ['a time with seconds', schedule({ end_time: '08:00:00' }), '/schedules/0/end_time: must be a time such as 18:00, or 24:00'],
    [
      'a date that there is not',
      schedule({ days_of_week: undefined, dates: ['2030-02-30'] }),
      '/schedules/0/dates/0: must be a date',
    ],
    ['another day', schedule({ days_of_week: ['monday'] }), '/schedules/0/days_of_week/0: must be one of "mon", "tue"'],
    ['no day', schedule({ days_of_week: [] }), 'failed at /schedules/0/days_of_week: must not be empty'],
    [
      'days and dates',
      schedule({ dates: ['2030-01-01'] }),
      '/schedules/0: exactly one of `days_of_week` and `dates` is required',
    ],
    ['neither', schedule({ days_of_week: undefined }), '/schedules/0: exactly one of `days_of_week` and `dates` is required'],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, document, expected) => {
    expect(await refusal('rate_limit_policies', document)).toContain(expected)
  })

  test.each(['has', '>', '>=', '<', '<=', 'ipmatch'])('the operator %s is told to be reserved', async operator => {
    expect(await refusal('rate_limit_policies', on({ ...team, operator }))).toBe(
      `schema validation failed at /conditions/0/operator: \`${operator}\` is reserved for later versions: use one of "==", "~=", "~~", "~*", "in"`,
    )
  })

  test('three levels of conditions are accepted; a fourth is refused in one sentence, where it begins', async () => {
    const { status } = await openAdmin().call('POST', '/admin/v1/rate_limit_policies', on(nested(3)))
    expect(status).toBe(200)
    expect(await refusal('rate_limit_policies', on(team, nested(4)))).toBe(
      'schema validation failed at /conditions/1/children/0/children/0: must be a comparison: conditions are at most 3 levels deep',
    )
  })

  test('a name of 256 characters is accepted', async () => {
    const admin = openAdmin()
    for (const form of [policy, classicPolicy]) {
      const { status } = await admin.call('POST', '/admin/v1/rate_limit_policies', form({ name: form.name.padEnd(256, 'x') }))
      expect(status).toBe(200)
    }
  })

  const wanted =
    'schema validation failed at : one of two forms is needed: either `scope`, `scope_ref` and `window` with `max_requests` or `max_tokens`, or `limits`, with `conditions` and `group_by` as needed'
  const known =
    'expected one of `name`, `scope`, `scope_ref`, `window`, `max_requests`, `max_tokens`, `limits`, `conditions`, `group_by`, `action`, `schedules`'

  test('of a document of neither form both are told, and nothing is said to be missing of either', async () => {
    expect(await refusal('rate_limit_policies', { name: 'p' })).toBe(wanted)
    expect(await refusal('rate_limit_policies', { name: 'p', scope: null, limits: null })).toBe(wanted)
    expect((await refusal('rate_limit_policies', {})).split('; ')).toEqual([
      'schema validation failed at /name: is required',
      wanted,
    ])
  })

  test.each([
    ['limitz', 'limits'],
    ['max_requets', 'max_requests'],
    ['scope-ref', 'scope_ref'],
    ['groupby', 'group_by'],
  ])('the typo %s in a document of neither form is told with %s, whichever form has it', async (typo, meant) => {
    const message = await refusal('rate_limit_policies', { name: 'p', [typo]: PASTED })
    expect(message.split('; ')).toEqual([
      `schema validation failed at : unknown field \`${typo}\` (did you mean \`${meant}\`?), ${known}`,
      wanted,
    ])
  })

  const exclusion = (classic: string, conditional: string) =>
    `schema validation failed at : the two forms of a policy exclude each other: leave out either ${classic} of the classic form or ${conditional} of the conditional one`
  const mixed: [Record<string, unknown>, string][] = [
    [policy({ max_requests: 1 }), exclusion('`max_requests`', '`limits`')],
    [policy({ limits: PASTED, scope: { a: PASTED } }), exclusion('`scope`', '`limits`')],
    [
      classicPolicy({ limits: {}, group_by: [PASTED], max_tokens: null }),
      exclusion('`scope`, `scope_ref`, `window`, `max_requests`', '`limits`, `group_by`'),
    ],
    [{ name: 'p', action: 'reject', window: 'day' }, exclusion('`window`', '`action`')],
  ]
  test.each(mixed)('of %j only that both forms are in it is told, with the members of each', async (document, expected) => {
    expect(await refusal('rate_limit_policies', document)).toBe(expected)
  })

  test('beside two forms in one document what is wrong with the members of both is told', async () => {
    const document = { ...policy({ max_requests: 1, windo: 'day', schedules: PASTED }), name: 5 }
    expect((await refusal('rate_limit_policies', document)).split('; ')).toEqual([
      `schema validation failed at : unknown field \`windo\` (did you mean \`window\`?), ${known}`,
      'schema validation failed at /name: must be a string, not a number',
      'schema validation failed at /schedules: must be an array, not a string',
      exclusion('`max_requests`', '`limits`'),
    ])
  })

  test('members of the other form that are null are absent', async () => {
    const admin = openAdmin()
    const classic = classicPolicy({ limits: null, conditions: null, max_tokens: null })
    expect((await admin.call('POST', '/admin/v1/rate_limit_policies', classic)).body).toMatchObject({ value: classicPolicy() })
    const conditional = policy({ scope: null, window: null, schedules: null })
    expect((await admin.call('POST', '/admin/v1/rate_limit_policies', conditional)).body).toMatchObject({ value: policy() })
  })

  test('a pattern that stalls engines that backtrack is accepted, because this one does not', async () => {
    const { status } = await openAdmin().call('POST', '/admin/v1/rate_limit_policies', on({ ...name, value: '^(a+)+$' }))
    expect(status).toBe(200)
  })
})

describe('budgets', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ['no limit', { limit_usd: undefined }, 'failed at : at least one of `limit_usd` and `limit_tokens` is required'],
    ['a limit of nothing', { limit_usd: 0 }, 'failed at /limit_usd: must be at least 0.000001'],
    ['a limit beyond all money', { limit_usd: 1e13 }, 'failed at /limit_usd: must be at most 1000000000000'],
    ['no tokens', { limit_tokens: 0 }, 'failed at /limit_tokens: must be at least 1'],
    ['a part of a token', { limit_tokens: 0.5 }, 'failed at /limit_tokens: must be a whole number'],
    ['a scope without its id', { scope_ref: undefined }, 'failed at /scope_ref: is required with `scope` `team`'],
    ['an empty id', { scope_ref: '' }, 'failed at /scope_ref: must not be empty'],
    ['everything, and one of it', { scope: 'all' }, 'failed at /scope_ref: has no meaning with `scope` `all`: leave it out'],
    ['another scope', { scope: PASTED }, 'failed at /scope: must be one of "api_key", "team", "user", "model", "all"'],
    ['another period', { period: 'year' }, 'failed at /period: must be one of "day", "week", "month", "total"'],
    ['no period', { period: undefined }, 'failed at /period: is required'],
    [
      'no zone',
      { timezone: '+02:00' },
      'failed at /timezone: must be a time zone of the IANA database, such as Europe/Berlin or UTC',
    ],
    ['a mark of nothing', { warn_at: [0] }, 'failed at /warn_at/0: must be at least 1'],
    ['a mark above the limit', { warn_at: [50, 101] }, 'failed at /warn_at/1: must be at most 100'],
    ['another action', { action: 'deny' }, 'failed at /action: must be one of "block", "warn"'],
    [
      'a limit in another money',
      { limit_eur: 5 },
      'unknown field `limit_eur` (did you mean `limit_usd`?), expected one of `name`, `scope`',
    ],
  ]
  test.each(cases)('%s is refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('budgets', budget(more))).toContain(expected)
  })

  test('what is left out has its meaning: midnight of UTC, requests are refused', async () => {
    const { body } = await openAdmin().call('POST', '/admin/v1/budgets', budget({ timezone: null, warn_at: null }))
    expect(body).toMatchObject({ value: { ...budget(), action: 'block' } })
  })
})

describe('passthrough routes', () => {
  const preserving = { target_url: undefined, preserve_host: true }
  const anonymous = { auth_mode: 'anonymous', anonymous_key_id: 'k', source_cidrs: ['10.0.0.0/8'] }
  const header = { auth_mode: 'header_key', auth_header_name: 'x-key' }
  const cases: [string, Record<string, unknown>, string][] = [
    ['no name', { name: undefined }, 'failed at /name: is required'],
    ['an empty name', { name: '' }, 'failed at /name: must not be empty'],
    ['both names', { display_name: 'up' }, 'failed at /display_name: duplicate field: give `name` or `display_name`, not both'],
    [
      'nothing to match',
      { path_prefix: undefined },
      'failed at /path_prefix: at least one of `path_prefix` and `hosts` is required',
    ],
    ['a prefix without its slash', { path_prefix: PASTED }, 'failed at /path_prefix: must start with /, as in /openai'],
    ['a prefix with a query', { path_prefix: '/up?a=b' }, 'failed at /path_prefix: must be a path alone'],
    ['a prefix with a blank', { path_prefix: '/u p' }, 'failed at /path_prefix: must hold no blanks and only ASCII'],
    ['a prefix with an empty segment', { path_prefix: '/up//x' }, 'failed at /path_prefix: must not hold an empty segment'],
    ['a prefix that leads back', { path_prefix: '/up/../x' }, 'failed at /path_prefix: must not hold the segments . and ..'],
    ...['/v1', '/v1/', '/v1/chat', '/mcp', '/a2a/x', '/admin', '/livez', '/readyz', '/metrics'].map(
      (path_prefix): [string, Record<string, unknown>, string] => [
        `the prefix ${path_prefix}`,
        { path_prefix },
        `failed at /path_prefix: must not begin with /${path_prefix.split('/')[1]}, which is the gateway's own, unless the route has \`hosts\``,
      ],
    ),
    ['no host', { hosts: [] }, 'failed at /hosts: must not be empty'],
    ['a URL as host', { hosts: ['https://a.example.com'] }, 'failed at /hosts/0: must be a host name alone'],
    ['a host with a port', { hosts: ['a.example.com:443'] }, 'failed at /hosts/0: must not carry a port: any port matches'],
    ['a star in the middle', { hosts: ['a.*.com'] }, 'failed at /hosts/0: may have a * only in front, for one label'],
    ['a star alone', { hosts: ['*'] }, 'failed at /hosts/0: may have a * only in front, for one label'],
    ['a host with a blank', { hosts: ['a b'] }, 'failed at /hosts/0: must be a host name such as api.example.com'],
    ['an empty label', { hosts: ['a..com'] }, 'failed at /hosts/0: must be a host name such as api.example.com'],
    [
      'no target',
      { target_url: undefined },
      'failed at /target_url: exactly one of `target_url` and `preserve_host: true` is required',
    ],
    [
      'two targets',
      { hosts: ['a.example.com'], preserve_host: true },
      'failed at /target_url: has no meaning with `preserve_host`: give one of both',
    ],
    ['any host', preserving, 'failed at /preserve_host: needs `hosts`: else callers would choose where requests go'],
    ['a target without a scheme', { target_url: 'h:80/v1' }, 'failed at /target_url: must start with http:// or https://'],
    ['an empty target', { target_url: ' ' }, 'failed at /target_url: must not be empty'],
    [
      'a credential in the target',
      { target_url: `https://u:${PASTED}@h/` },
      'failed at /target_url: must not carry user info: the credential belongs to the provider key',
    ],
    ['a query in the target', { target_url: 'https://h/?a=b' }, 'failed at /target_url: must not carry a query or a fragment'],
    [
      'another way to show a key',
      { auth_mode: PASTED },
      'failed at /auth_mode: must be one of "gateway_key", "header_key", "anonymous"',
    ],
    ['no header', { auth_mode: 'header_key' }, 'failed at /auth_header_name: is required with `auth_mode` `header_key`'],
    [
      'a header that nobody reads',
      { auth_header_name: 'x-key' },
      'failed at /auth_header_name: belongs to `auth_mode` `header_key`: leave it out',
    ],
    ...['authorization', 'proxy-authorization', 'cookie', 'set-cookie', 'x-api-key'].flatMap(
      (name): [string, Record<string, unknown>, string][] => [
        [
          `the key in ${name}`,
          { ...header, auth_header_name: name },
          'failed at /auth_header_name: must not be a header that carries a credential of its own',
        ],
        [
          `the user in ${name}`,
          { identity_header: name },
          'failed at /identity_header: must not be a header that carries a credential of its own',
        ],
      ],
    ),
    [
      'a header in capitals',
      { ...header, auth_header_name: 'X-Key' },
      'failed at /auth_header_name: must be the name of a header in lower case',
    ],
    [
      'a header line',
      { identity_header: `x-user: ${PASTED}` },
      'failed at /identity_header: must be the name of a header in lower case',
    ],
    ['the host as header', { identity_header: 'host' }, 'failed at /identity_header: must not be a header of the connection'],
    [
      'the key as the name of its user',
      { ...header, identity_header: 'x-key' },
      'failed at /identity_header: must not be `auth_header_name`: the key would be recorded',
    ],
    [
      'nobody',
      { ...anonymous, anonymous_key_id: undefined },
      'failed at /anonymous_key_id: is required with `auth_mode` `anonymous`',
    ],
    [
      'nobody beside a key',
      { anonymous_key_id: 'k' },
      'failed at /anonymous_key_id: belongs to `auth_mode` `anonymous`: leave it out',
    ],
    ...[undefined, []].map((source_cidrs): [string, Record<string, unknown>, string] => [
      `nobody from ${source_cidrs === undefined ? 'everywhere' : 'nowhere'}`,
      { ...anonymous, source_cidrs },
      'failed at /source_cidrs: is required with `auth_mode` `anonymous`, at least one network',
    ]),
    [
      'no provider key',
      { provider_key_id: undefined },
      'failed at /provider_key_id: is required with `credential_mode` `inject`',
    ],
    [
      'a provider key too many',
      { credential_mode: 'forward_client' },
      'failed at /provider_key_id: belongs to `credential_mode` `inject`: leave it out',
    ],
    ['no time', { timeout_ms: 0 }, 'failed at /timeout_ms: must be at least 1'],
    ['a typo', { target: 'x' }, 'unknown field `target`'],
  ]
  test.each(cases)('%s: refused by place and rule', async (_name, more, expected) => {
    expect(await refusal('passthrough_routes', passthroughRoute(more))).toContain(expected)
  })

  test('what is left out has its meaning, hosts are in lower case, and the other spelling reads as `name`', async () => {
    const document = { ...passthroughRoute({ hosts: ['API.Example.com', '*.Example.com'] }), name: undefined, display_name: 'up' }
    const { body } = await openAdmin().call('POST', '/admin/v1/passthrough_routes', document)
    expect(body).toMatchObject({
      value: {
        ...{
          name: 'up',
          path_prefix: '/up',
          hosts: ['api.example.com', '*.example.com'],
          target_url: 'http://127.0.0.1:8000/v1',
        },
        ...{ preserve_host: false, auth_mode: 'gateway_key', credential_mode: 'inject', provider_key_id: 'pk', enabled: true },
      },
    })
    expect(body).not.toHaveProperty('value.display_name')
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
    [
      'a limit by another name',
      { rate_limit: { rpx: 1 } },
      'malformed ApiKey payload: schema validation failed at /rate_limit: unknown field `rpx`',
    ],
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
    const message = await refusal(
      'models',
      model('pk', { embedding: { dimensions: 1 }, auto_prompt_caching: {}, retries: -1, modelname: PASTED }),
    )
    expect(message.split('; ')).toEqual([
      '`embedding` is not supported by this version: leave it out',
      '`auto_prompt_caching` is not supported by this version: leave it out',
      expect.stringContaining('unknown field `modelname` (did you mean `model_name`?), expected one of'),
      'schema validation failed at /retries: must be at least 0',
    ])
    const ensemble = await refusal('models', { display_name: 'g', ensemble: {}, embedding: {}, timout: 1, retries: -1 })
    expect(ensemble.split('; ')).toEqual([
      'ensemble models are not supported by this version: leave out `ensemble`',
      '`embedding` is not supported by this version: leave it out',
      expect.stringContaining('unknown field `timout`'),
      'schema validation failed at /retries: must be at least 0',
    ])
  })

  test('name several unknown members of one object in one sentence, the known ones once', async () => {
    const message = await refusal('apikeys', apiKey({ max_budget_usd: 5, disable: true }))
    expect(message).toBe(
      'malformed ApiKey payload: unknown field(s): `max_budget_usd`, `disable` (did you mean `disabled`?), expected one of `key_hash`, `allowed_models`, `allowed_routes`, `display_name`, `expires_at`, `disabled`, `rate_limit`, `team_id`, `user_id`, `user_name`',
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

  test.each([
    ['1e21', 'must be at most 9007199254740991'],
    ['9007199254740992', 'must be at most 9007199254740991'],
    ['-1e21', 'must be at least 0'],
    ['-1', 'must be at least 0'],
  ])('a number is told to be out of bounds once, by the bound of the rule: %s', async (number, expected) => {
    const text = JSON.stringify(apiKey({ rate_limit: { rpm: 123 } })).replace('123', number)
    expect(await refusal('apikeys', text)).toBe(`schema validation failed at /rate_limit/rpm: ${expected}`)
    const narrow = JSON.stringify(model('pk', { timeout: 123 })).replace('123', number)
    const bound = expected.replace('9007199254740991', '2147483647')
    expect(await refusal('models', narrow)).toBe(`schema validation failed at /timeout: ${bound}`)
  })

  test('list twenty problems and count the rest', async () => {
    const allowed_cidrs = Array.from({ length: 50 }, () => '')
    const message = await refusal('models', model('pk', { allowed_cidrs }))
    expect(message.split('; ')).toHaveLength(21)
    expect(message).toEndWith('; and 30 more')
  })
})

/** `aisix diff` and `aisix apply`, as processes of the executable against gateways of their own. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ADMIN_KEY, EXECUTABLE, type Executable, startExecutable } from '../executable.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { operatorOf } from '../operator.ts'
import { aisix, type Ran } from './aisix.ts'
import { runCli } from './io.ts'

type Collections = Record<string, Record<string, unknown>[]>

const SECRET = 'server-secret-0001'
const CALLER_KEY = 'sk-search-0001'
const ENV = { VLLM_SECRET: SECRET, SEARCH_APP_KEY: CALLER_KEY, COLLECTOR_TOKEN: 'collector-token-0001' }

let upstream: FakeUpstream
let gateway: Executable
let home: string
const ran: Ran[] = []
beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'aisix-apply-'))
  upstream = await fakeUpstream()
  upstream.answer((_request, connection) =>
    connection.json(200, {
      id: 'c',
      object: 'chat.completion',
      model: 'm',
      choices: [{ index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
    }),
  )
})
afterEach(async () => {
  await gateway.dispose()
  // Whatever was asked for, and however it ended.
  const text = ran.map(({ stdout, stderr }) => stdout + stderr).join('')
  for (const secret of [...Object.values(ENV), ...ROTATED, sha256(CALLER_KEY)]) expect(text).not.toContain(secret)
  ran.length = 0
})
afterAll(() => {
  upstream.stop()
  rmSync(home, { recursive: true })
})

const ROTATED = ['server-secret-0002', 'sk-search-0002', 'body-token-0002', 'model-token-0002']
const sha256 = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex')

/** Resources of every kind, by the names of the guide. */
function everything(): Collections {
  return {
    budgets: [{ name: 'search-app a day', scope: 'api_key', scope_ref: 'search-app', limit_usd: 5, period: 'day' }],
    rate_limit_policies: [
      {
        name: 'search-app on llama',
        limits: { rpm: 600 },
        conditions: [
          { dimension: 'api_key', operator: '==', value: 'search-app' },
          { dimension: 'model', operator: 'in', value: ['llama-3-private'] },
        ],
      },
    ],
    observability_exporters: [
      {
        name: 'collector',
        enabled: false,
        kind: 'otlp_http',
        endpoint: 'http://127.0.0.1:9/v1/traces',
        headers: { 'x-token': '${COLLECTOR_TOKEN}' },
      },
    ],
    passthrough_routes: [
      {
        name: 'engine',
        path_prefix: '/engine',
        target_url: 'http://127.0.0.1:9',
        auth_mode: 'gateway_key',
        credential_mode: 'inject',
        provider_key: 'vllm-private',
      },
    ],
    api_keys: [
      {
        display_name: 'search-app',
        key_env: 'SEARCH_APP_KEY',
        allowed_models: ['llama-3', 'llama-3-private'],
        allowed_routes: ['engine'],
      },
    ],
    models: [
      { display_name: 'llama-3', routing: { targets: [{ model: 'llama-3-private' }] } },
      {
        display_name: 'llama-3-private',
        provider: 'vllm',
        model_name: 'meta-llama/Llama-3.1-8B-Instruct',
        provider_key: 'vllm-private',
        timeout: 5000,
        cost: { input_per_1k: 0, output_per_1k: 0 },
      },
    ],
    provider_keys: [
      { display_name: 'vllm-private', provider: 'vllm', adapter: 'openai', secret: '${VLLM_SECRET}', api_base: upstream.url },
    ],
  }
}

function write(collections: Collections): string {
  const path = join(home, 'resources.yaml')
  // JSON is YAML too.
  writeFileSync(path, JSON.stringify({ _format_version: '1', ...collections }, null, 2))
  return path
}

async function cli(command: 'diff' | 'apply', collections: Collections, more: string[] = [], env: Record<string, string> = {}) {
  const argv = [command, '--resources', write(collections), '--url', gateway.adminUrl, ...more]
  const result = await aisix(argv, { env: { ...ENV, ...env } })
  ran.push(result)
  return result
}

const chat = (key: string, model: string) =>
  fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'hello' }] }),
  }).then(({ status }) => status)

async function list(path: string): Promise<{ id: string; value: Record<string, unknown>; revision: number }[]> {
  const entries: unknown = await operatorOf(gateway)
    .ask('GET', path)
    .then(response => response.json())
  if (!Array.isArray(entries)) throw new Error(`GET ${path} gave no list`)
  return entries
}

const CREATED = [
  '+ provider_keys "vllm-private"',
  '+ models "llama-3-private"',
  '+ models "llama-3"',
  '+ passthrough_routes "engine"',
  '+ api_keys "search-app"',
  '+ rate_limit_policies "search-app on llama"',
  '+ budgets "search-app a day"',
  '+ observability_exporters "collector"',
]
const UNCOMPARED = (count: number) =>
  `credentials of ${count} resource(s) are there on both sides and cannot be compared; aisix apply --secrets writes them again\n`
const lines = (texts: string[]) => texts.map(text => `${text}\n`).join('')

test('an empty store gets everything, requests are answered, and nothing is left to differ', async () => {
  gateway = await startExecutable()
  expect(await cli('diff', everything())).toEqual({ stdout: lines(CREATED), stderr: '', exit: 1 })
  expect(await cli('apply', everything(), ['--dry-run'])).toEqual({
    stdout: lines([...CREATED, 'Nothing was done; would be 8 created, 0 updated, 0 deleted, 0 as they were']),
    stderr: '',
    exit: 0,
  })
  expect(await list('models')).toEqual([])

  expect(await cli('apply', everything())).toEqual({
    stdout: lines([...CREATED, '8 created, 0 updated, 0 deleted, 0 as they were']),
    stderr: '',
    exit: 0,
  })
  expect(await cli('diff', everything())).toEqual({ stdout: '', stderr: UNCOMPARED(2), exit: 0 })
  expect(await chat(CALLER_KEY, 'llama-3')).toBe(200)
  expect(upstream.last().header('authorization')).toBe(`Bearer ${SECRET}`)
  const [budget] = await list('budgets')
  const [key] = await list('apikeys')
  expect(budget?.value.scope_ref).toBe(key?.id)

  // Once more changes nothing.
  const again = await cli('apply', everything(), ['--prune'])
  expect(again).toMatchObject({ stdout: '0 created, 0 updated, 0 deleted, 8 as they were\n', exit: 0 })
  expect((await list('models')).map(({ revision }) => revision)).toEqual([1, 1])
})

test('a change is made under the id that is there, and credentials stay unless they are asked for', async () => {
  gateway = await startExecutable()
  await cli('apply', everything())
  const [before] = await list('provider_keys')
  const file = everything()
  Object.assign(file.models?.[1] ?? {}, { timeout: 10_000 })
  Object.assign(file.provider_keys?.[0] ?? {}, { request: { default_body_fields: { token: '${BODY_TOKEN}' } } })
  // No member for credentials, but whoever takes a value from a variable may have a reason.
  Object.assign(file.models?.[1] ?? {}, { model_name: 'org/${MODEL_TOKEN}' })
  const env = {
    MODEL_TOKEN: 'model-token-0002',
    VLLM_SECRET: 'server-secret-0002',
    SEARCH_APP_KEY: 'sk-search-0002',
    BODY_TOKEN: 'body-token-0002',
  }
  const diff = await cli('diff', file, [], env)
  expect(diff.exit).toBe(1)
  const [server, model, key, ...others] = diff.stdout.split('\n')
  expect(server).toMatch(
    /^~ provider_keys "vllm-private": request \(absent\) → \{.*"default_body_fields":\{"token":"\*\*\*"\}.*\}$/,
  )
  expect(model).toBe('~ models "llama-3-private": model_name "***" → "***", timeout 5000 → 10000')
  expect(key).toBe('~ api_keys "search-app": key_hash "***" → "***"')
  expect(others).toEqual([''])

  expect((await cli('apply', file, [], env)).stdout).toEndWith('0 created, 3 updated, 0 deleted, 5 as they were\n')
  expect(await cli('diff', file, [], env)).toMatchObject({ stdout: '', exit: 0 })
  const [after] = await list('provider_keys')
  expect(after).toMatchObject({ id: before?.id, revision: 2 })
  expect(await chat(CALLER_KEY, 'llama-3')).toBe(401)
  expect(await chat('sk-search-0002', 'llama-3')).toBe(200)
  expect(upstream.last().header('authorization')).toBe(`Bearer ${SECRET}`)
  expect(upstream.last().json()).toMatchObject({ token: 'body-token-0002' })

  const forced = await cli('apply', file, ['--secrets'], env)
  expect(forced.stdout).toBe(
    lines([
      '~ provider_keys "vllm-private": secret "***" → "***"',
      '~ observability_exporters "collector": headers.x-token "***" → "***"',
      '0 created, 2 updated, 0 deleted, 6 as they were',
    ]),
  )
  expect(await chat('sk-search-0002', 'llama-3')).toBe(200)
  expect(upstream.last().header('authorization')).toBe('Bearer server-secret-0002')
})

test('what the file does not have stays, and goes with --prune, whatever names it last', async () => {
  gateway = await startExecutable()
  await cli('apply', everything())
  const file = everything()
  // Renamed, and so another one.
  file.provider_keys = [{ ...file.provider_keys?.[0], display_name: 'vllm-new' }]
  file.models = [{ ...file.models?.[1], provider_key: 'vllm-new' }]
  file.api_keys = [{ ...file.api_keys?.[0], allowed_models: ['llama-3-private'], allowed_routes: [] }]
  file.passthrough_routes = []
  const made = [
    '+ provider_keys "vllm-new"',
    '~ models "llama-3-private": provider_key "vllm-private" → "vllm-new"',
    '~ api_keys "search-app": allowed_models ["llama-3","llama-3-private"] → ["llama-3-private"], allowed_routes ["engine"] → []',
  ]
  const pruned = ['- passthrough_routes "engine"', '- models "llama-3"', '- provider_keys "vllm-private"']
  expect(await cli('diff', file)).toMatchObject({
    stdout: lines([...made, ...pruned.map(line => `${line} (only with --prune)`)]),
    exit: 1,
  })
  expect(await cli('apply', file)).toEqual({
    stdout: lines([...made, '1 created, 2 updated, 0 deleted, 3 as they were']),
    stderr: `3 resource(s) of the gateway are not in the file and stay; --prune deletes them\n${UNCOMPARED(1)}`,
    exit: 0,
  })
  expect(await list('provider_keys')).toHaveLength(2)
  expect((await cli('diff', file)).exit).toBe(1)
  expect(await cli('apply', file, ['--prune'])).toEqual({
    stdout: lines([...pruned, '0 created, 0 updated, 3 deleted, 6 as they were']),
    stderr: UNCOMPARED(2),
    exit: 0,
  })
  expect(await list('provider_keys')).toMatchObject([{ value: { display_name: 'vllm-new' } }])
  expect(await cli('diff', file)).toMatchObject({ stdout: '', exit: 0 })
  expect(await chat(CALLER_KEY, 'llama-3-private')).toBe(200)
})

test('a refusal stops it, tells what was not tried, and the next run goes on', async () => {
  gateway = await startExecutable()
  const file = everything()
  // A file may have a hash that is none; the admin API refuses it.
  file.api_keys = [{ display_name: 'search-app', key_hash: 'no-hash', allowed_models: [] }]
  const refused = await cli('apply', file)
  expect(refused.exit).toBe(1)
  expect(refused.stdout).toBe(lines(CREATED.slice(0, 4)))
  const [warning, refusal, ...rest] = refused.stderr.split('\n')
  expect(warning).toMatch(/^warning: api_keys\[0\] \("search-app"\): `key_hash` is not 64 hexadecimal digits/)
  expect(refusal).toMatch(
    /^aisix: \+ api_keys "search-app": schema validation failed at \/key_hash: must be 64 hexadecimal digits/,
  )
  expect(rest).toEqual(['4 of 8 change(s) made; not tried:', ...CREATED.slice(5).map(line => `  ${line}`), ''])

  const told = await cli('apply', file, ['--json'])
  expect(told.exit).toBe(1)
  expect(JSON.parse(told.stdout)).toMatchObject({
    changes: [
      { action: 'create', kind: 'api_keys', name: 'search-app', outcome: 'refused' },
      { outcome: 'not made' },
      { outcome: 'not made' },
      { outcome: 'not made' },
    ],
    same: 4,
    error: expect.stringContaining('/key_hash'),
  })
  expect((await cli('apply', everything())).stdout).toBe(
    lines([...CREATED.slice(4), '4 created, 0 updated, 0 deleted, 4 as they were']),
  )
})

test('every line is printed once, however many there are, and nothing else', async () => {
  gateway = await startExecutable()
  const models = Array.from({ length: 40 }, (_, i) => ({
    display_name: `model-${i}`,
    provider: 'vllm',
    model_name: 'm',
    provider_key: 'vllm-private',
  }))
  const file = { provider_keys: everything().provider_keys ?? [], models }
  expect(await cli('apply', file)).toEqual({
    stdout: lines([
      '+ provider_keys "vllm-private"',
      ...models.map(({ display_name }) => `+ models "${display_name}"`),
      '41 created, 0 updated, 0 deleted, 0 as they were',
    ]),
    stderr: '',
    exit: 0,
  })
})

test('a reader that goes away does not stop what is being made', async () => {
  gateway = await startExecutable()
  const argv = [EXECUTABLE, 'apply', '--resources', write(everything()), '--url', gateway.adminUrl]
  // `true` reads nothing: the pipe is broken from its first line on, or a little later.
  const child = Bun.spawn(['bash', '-c', '"$@" | true; exit "${PIPESTATUS[0]}"', 'bash', ...argv], {
    env: { PATH: process.env.PATH ?? '', AISIX_ADMIN_KEY: ADMIN_KEY, ...ENV },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  expect({ exit: await child.exited, stderr: await child.stderr.text() }).toEqual({ exit: 0, stderr: '' })
  expect((await cli('diff', everything())).exit).toBe(0)
})

test('what an operator writes in between is not overwritten', async () => {
  gateway = await startExecutable()
  await cli('apply', everything())
  const file = everything()
  Object.assign(file.models?.[1] ?? {}, { timeout: 10_000 })
  let isMeddled = false
  const result = await runCli(['apply', '--resources', write(file), '--url', gateway.adminUrl], {
    env: { ...ENV, AISIX_ADMIN_KEY: ADMIN_KEY },
    async fetch(url, init) {
      // All kinds are read; next the model is read again.
      if (/\/models\/[^/]+$/.test(String(url)) && init?.method === 'GET' && !isMeddled) {
        isMeddled = true
        const [entry] = (await list('models')).filter(({ value }) => value.display_name === 'llama-3-private')
        await operatorOf(gateway).ask('PUT', `models/${entry?.id}`, { ...entry?.value, timeout: 7 })
      }
      return fetch(url, init)
    },
  })
  ran.push(result)
  expect(result).toMatchObject({ exit: 1, stdout: '' })
  expect(result.stderr).toContain('someone has written it since it was compared: run this again\n0 of 1 change(s) made\n')
  expect((await cli('diff', file)).stdout).toBe('~ models "llama-3-private": timeout 7 → 10000\n')
})

describe('what cannot be done', () => {
  test('is told before anything is asked where it is the file, and apart from a difference', async () => {
    gateway = await startExecutable()
    const file = everything()
    const broken = { ...file, models: [{ ...file.models?.[1], provider_key: 'gone' }] }
    const unreachable = ['--url', 'http://127.0.0.1:1']
    for (const [command, exit] of [
      ['diff', 2],
      ['apply', 1],
    ] as const) {
      const argv = (path: string) => [command, '--resources', path, ...unreachable]
      const invalid = await aisix(argv(write(broken)), { env: ENV })
      expect(invalid).toMatchObject({ stdout: '', exit })
      expect(invalid.stderr).toContain('"gone" names no entry of provider_keys')
      expect(invalid.stderr).not.toContain('127.0.0.1:1')
      expect(await aisix(argv(join(home, 'none.yaml')))).toMatchObject({ exit })
      const silent = await aisix(argv(write(file)), { env: ENV })
      expect(silent).toMatchObject({ stdout: '', exit })
      expect(silent.stderr).toContain('connection to http://127.0.0.1:1 refused')
      const stranger = await cli(command, file, [], { AISIX_ADMIN_KEY: 'wrong-admin-key' })
      expect(stranger).toMatchObject({ stdout: '', exit })
      expect(stranger.stderr).toContain('refuses the admin key (401)')
      expect(stranger.stderr).not.toContain('wrong-admin-key')
      expect(await aisix([command])).toMatchObject({ exit: 2, stderr: expect.stringContaining('--resources FILE') })
      ran.push(invalid, silent)
    }
  })

  test('a gateway in file mode can be compared, and refuses every write in its own words', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'aisix-file-mode-'))
    writeFileSync(join(folder, 'gateway.yaml'), JSON.stringify({ _format_version: '1', ...everything() }))
    gateway = await startExecutable({ folder, env: { ...ENV, AISIX_RESOURCES_FILE: 'gateway.yaml' } })
    expect(await cli('diff', everything())).toMatchObject({ stdout: '', exit: 0 })
    const file = everything()
    Object.assign(file.models?.[1] ?? {}, { timeout: 10_000 })
    const { stdout, stderr, exit } = await cli('apply', file)
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(stderr).toContain('resources are file-managed')
    await gateway.dispose()
    rmSync(folder, { recursive: true })
  })
})

test('--json has every change with its values, for scripts', async () => {
  gateway = await startExecutable()
  await cli('apply', everything())
  const file = everything()
  Object.assign(file.models?.[1] ?? {}, { timeout: 10_000 })
  file.observability_exporters = []
  const [exporter] = await list('observability_exporters')
  const { stdout, exit } = await cli('diff', file, ['--json'])
  expect(exit).toBe(1)
  expect(JSON.parse(stdout)).toEqual({
    changes: [
      {
        action: 'update',
        kind: 'models',
        name: 'llama-3-private',
        id: expect.any(String),
        differences: [{ path: 'timeout', before: 5000, after: 10_000 }],
      },
      { action: 'delete', kind: 'observability_exporters', name: 'collector', id: exporter?.id },
    ],
    same: 6,
    credentials_not_compared: 1,
  })
  const applied = await cli('apply', file, ['--json', '--prune'])
  expect(JSON.parse(applied.stdout)).toMatchObject({ changes: [{ outcome: 'done' }, { outcome: 'done' }], same: 6, kept: 0 })
  expect(await cli('diff', file)).toMatchObject({ stdout: '', exit: 0 })
})

/** The commands of daily work, as processes of the executable against a running gateway. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_KEY, type Executable, startExecutable } from '../executable.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { aisix } from './aisix.ts'

let gateway: Executable
let upstream: FakeUpstream
beforeAll(async () => {
  upstream = await fakeUpstream()
  upstream.answer((_request, connection) =>
    connection.json(200, {
      id: 'c',
      object: 'chat.completion',
      model: 'm',
      choices: [{ index: 0, message: { role: 'assistant', content: 'hi' }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
    }),
  )
  gateway = await startExecutable()
})
afterAll(async () => {
  await gateway.dispose()
  upstream.stop()
})

const cli = (argv: string[], options: Parameters<typeof aisix>[1] = {}) => aisix([...argv, '--url', gateway.adminUrl], options)
const chat = (key: string, model: string) =>
  fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'hello' }] }),
  }).then(async response => ({ status: response.status, text: await response.text() }))

test('from nothing to an answer, and back, by names alone', async () => {
  expect(await cli(['keys', 'list'])).toEqual({ stdout: '', stderr: 'there are no keys yet\n', exit: 0 })
  const server = await cli(['provider-keys', 'create', 'vllm-a', '--provider', 'vllm', '--api-base', upstream.url], {
    stdin: 'server-secret-0001\n',
  })
  expect(server).toEqual({
    stdout: expect.stringMatching(/^provider key "vllm-a" \([0-9a-f-]{36}\) created\n$/),
    stderr: '',
    exit: 0,
  })
  const model = await cli([
    'models',
    'create',
    'llama',
    '--provider-key',
    'vllm-a',
    '--model-name',
    'org/llama',
    '--input-per-1k',
    '1',
    '--output-per-1k',
    '2',
    '--json',
  ])
  expect(JSON.parse(model.stdout)).toMatchObject({
    value: { provider: 'vllm', cost: { input_per_1k: 1, output_per_1k: 2 } },
    revision: 1,
  })
  const key = await cli([
    'keys',
    'create',
    'search frontend',
    '--model',
    'llama',
    '--team',
    'search',
    '--rpm',
    '600',
    '--expires',
    '90d',
  ])
  expect(key).toEqual({
    stdout: expect.stringMatching(/^sk-[A-Za-z0-9_-]{43}\n$/),
    stderr: expect.stringMatching(/^key "search frontend" \([0-9a-f-]{36}\) created; it is shown this once\n$/),
    exit: 0,
  })
  const plaintext = key.stdout.trim()
  expect(await chat(plaintext, 'llama')).toMatchObject({ status: 200 })
  expect(upstream.last().header('authorization')).toBe('Bearer server-secret-0001')

  // The store has the hash and never the key.
  const shown = await cli(['keys', 'show', 'search frontend', '--json'])
  const entry = JSON.parse(shown.stdout)
  expect(entry.value.key_hash).toBe(new Bun.CryptoHasher('sha256').update(plaintext).digest('hex'))
  expect(readFileSync(join(gateway.folder, 'aisix.db')).includes(plaintext)).toBe(false)
  const keys = await cli(['keys', 'list'])
  const lines = keys.stdout.split('\n')
  expect(lines[0]).toMatch(/^NAME +STATE +MODELS +TEAM +USER +LIMITS +EXPIRES +ID$/)
  expect(lines[1]).toMatch(/^search frontend +active +llama +search +rpm 600 +20\d\d-\d\d-\d\d +[0-9a-f-]{36}$/)

  expect((await cli(['keys', 'disable', 'search frontend'])).exit).toBe(0)
  expect(await chat(plaintext, 'llama')).toMatchObject({ status: 401 })
  expect((await cli(['keys', 'disable', 'search frontend'])).stdout).toContain('is disabled already')
  expect(JSON.parse((await cli(['keys', 'enable', entry.id.slice(0, 8), '--json'])).stdout)).toMatchObject({
    id: entry.id,
    revision: 3,
  })
  expect(await chat(plaintext, 'llama')).toMatchObject({ status: 200 })

  const rotated = await cli(['keys', 'rotate', 'search frontend', '--json'])
  const replacement = JSON.parse(rotated.stdout).plaintext
  expect(await chat(plaintext, 'llama')).toMatchObject({ status: 401 })
  expect(await chat(replacement, 'llama')).toMatchObject({ status: 200 })

  // usage
  const usage = await cli(['usage', '--by', 'model,team', '--last', '1h'])
  expect(usage.exit).toBe(0)
  expect(usage.stdout.split('\n')[0]).toMatch(/^MODEL +TEAM +REQUESTS +FAILED +PROMPT +COMPLETION +USD/)
  expect(usage.stdout).toMatch(/^llama +search +3 +0 +30 +15 +0\.06 /m)
  expect(usage.stdout).toMatch(/^total +3 +0 /m)
  expect(usage.stderr).toMatch(/^20\S+Z to 20\S+Z\n/)
  expect((await cli(['usage', '--by', 'model', '--csv'])).stdout).toMatch(/^model_id,model,requests,/)
  expect(JSON.parse((await cli(['usage', '--team', 'search', '--json'])).stdout).totals.requests).toBe(3)

  // delete, with what is left dangling
  const gone = await cli(['models', 'delete', 'llama'])
  expect(gone.exit).toBe(0)
  expect(gone.stdout).toMatch(/^model "llama" \([0-9a-f-]{36}\) deleted\n$/)
  expect(gone.stderr).toMatch(/^warning: .*llama/)
  const status = await cli(['status'])
  expect(status.stdout).toMatch(/^health: +ok$/m)
  expect(status.stdout).toMatch(/api_keys search frontend +allowed_models +llama/)
  expect((await cli(['keys', 'delete', 'search frontend'])).exit).toBe(0)
  expect((await cli(['provider-keys', 'delete', 'vllm-a'])).exit).toBe(0)
  expect((await cli(['keys', 'list', '--json'])).stdout).toBe('[]\n')
})

test('a group of models, listed with what it stands for', async () => {
  for (const name of ['a', 'b']) {
    await cli(['provider-keys', 'create', `server-${name}`, '--provider', 'vllm', '--api-base', upstream.url, '--no-secret'])
    await cli(['models', 'create', `m-${name}`, '--provider-key', `server-${name}`, '--model-name', 'org/m'])
  }
  const made = await cli(['models', 'create', 'm', '--target', 'm-a=70,m-b', '--strategy', 'round_robin', '--json'])
  expect(JSON.parse(made.stdout).value.routing).toEqual({
    strategy: 'round_robin',
    targets: [{ model: 'm-a', weight: 70 }, { model: 'm-b' }],
  })
  const { stdout } = await cli(['models', 'list'])
  expect(stdout).toMatch(/^m-a +healthy +org\/m +server-a +[0-9a-f-]{36}$/m)
  expect(stdout).toMatch(/^m +group +round_robin: m-a, m-b +[0-9a-f-]{36}$/m)
  expect((await cli(['provider-keys', 'show', 'server-a'])).stdout).toMatch(/^secret: +\*\*\*$/m)
})

describe('what goes wrong is one line that says what to do', () => {
  test.each([
    [['keys', 'show', 'nobody'], 1, 'there is no key "nobody": aisix keys list shows all'],
    [['provider-keys', 'show', 'server-q'], 1, 'there is no provider key "server-q": did you mean "server-'],
    [['models', 'create', 'x', '--provider-key', 'server-a'], 2, 'needs --provider-key and --model-name'],
    [['models', 'create', 'x', '--target', 'm-a', '--retries', '1'], 2, '--retries belongs to a model of its own'],
    [['models', 'create', 'm', '--target', 'm-a'], 1, 'already in use'],
    [['models', 'create', 'y', '--target', 'm-a', '--strategy', 'best'], 1, 'schema validation failed'],
    [['keys', 'create', 'x'], 2, '--model ALIAS, or --all-models'],
    [['keys', 'create', 'x', '--all-models', '--rpm', 'many'], 2, '--rpm needs a whole number'],
    [['keys', 'create', 'x', '--all-models', '--expires', '2020-01-01'], 2, 'a time that lies ahead'],
    [['usage', '--last', 'week'], 2, '--last needs a length'],
    [['usage', '--by', 'colour'], 1, 'group_by'],
    [['provider-keys', 'create', 'x', '--api-base', 'http://127.0.0.1:1'], 2, 'no secret on standard input'],
    [['provider-keys', 'create', 'x', '--secret-env', 'NO_SUCH'], 2, 'the variable NO_SUCH is unset or empty'],
  ])('%p', async (argv, exit, message) => {
    const ran = await cli(argv)
    expect(ran).toMatchObject({ exit, stdout: '' })
    expect(ran.stderr).toContain(message)
    expect(ran.stderr.trimEnd().split('\n')).toHaveLength(exit === 2 ? 2 : 1)
  })

  test('a name that two keys have is told with both ids, and an id is taken', async () => {
    const first = JSON.parse((await cli(['keys', 'create', 'twice', '--all-models', '--json'])).stdout).entry.id
    const refused = await cli(['keys', 'create', 'twice', '--all-models'])
    expect(refused).toMatchObject({ exit: 1, stdout: '', stderr: expect.stringContaining('there is a key of this name already') })
    const response = await fetch(`${gateway.adminUrl}/admin/v1/apikeys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ display_name: 'twice', key_hash: 'a'.repeat(64), allowed_models: [] }),
    })
    expect(response.status).toBe(200)
    const ran = await cli(['keys', 'delete', 'twice'])
    expect(ran.stderr).toContain(`2 keys are called "twice": say which one by its id: ${first}, `)
    expect(ran.exit).toBe(1)
    expect(await cli(['keys', 'delete', first])).toMatchObject({ exit: 0 })
    expect(await cli(['keys', 'delete', 'twice'])).toMatchObject({ exit: 0 })
  })

  test('a wrong admin key, none, nobody there, and no gateway', async () => {
    const wrong = await cli(['status'], { env: { AISIX_ADMIN_KEY: 'admin-wrong' } })
    expect(wrong.stderr).toContain('refuses the admin key (401)')
    expect(wrong.stderr).not.toContain('admin-wrong')
    expect(wrong.exit).toBe(1)
    expect(await cli(['status'], { env: { AISIX_ADMIN_KEY: '' } })).toMatchObject({
      exit: 2,
      stderr: expect.stringContaining('no admin key: set AISIX_ADMIN_KEY'),
    })
    expect(await cli(['status', '--admin-key-env', 'OTHER'], { env: { OTHER: ADMIN_KEY } })).toMatchObject({ exit: 0 })
    const nobody = await aisix(['status', '--url', 'http://127.0.0.1:1'])
    expect(nobody).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('connection to http://127.0.0.1:1 refused: is the gateway running'),
    })
    const other = await aisix(['status', '--url', upstream.origin])
    expect(other).toMatchObject({ exit: 1, stdout: '' })
    const proxy = await aisix(['status', '--url', gateway.proxyUrl])
    expect(proxy).toMatchObject({ exit: 1, stderr: expect.stringContaining('is this the admin listener') })
    const tls = await aisix(['status', '--url', gateway.adminUrl.replace('http:', 'https:')])
    expect(tls).toMatchObject({ exit: 1, stderr: expect.stringContaining(`should it be ${gateway.adminUrl}?`) })
  })
})

test('--config gives the address and the key of the gateway on this machine', async () => {
  const ran = await aisix(['status', '--config', join(gateway.folder, 'config.yaml'), '--json'], { env: { AISIX_ADMIN_KEY: '' } })
  expect(ran).toMatchObject({ exit: 0, stderr: '' })
  expect(JSON.parse(ran.stdout)).toMatchObject({ url: gateway.adminUrl, health: { status: 'ok' }, in_flight: { total: 0 } })
})

test('a table fits the terminal; without one, and with NO_COLOR, it has no colour', async () => {
  const inTerminal = async (env: Record<string, string>) => {
    let seen = ''
    const decoder = new TextDecoder()
    const child = Bun.spawn(
      [process.env.AISIX_EXECUTABLE ?? join(import.meta.dir, '../../aisix'), 'models', 'list', '--url', gateway.adminUrl],
      {
        env: { PATH: process.env.PATH ?? '', AISIX_ADMIN_KEY: ADMIN_KEY, TERM: 'xterm', ...env },
        terminal: {
          cols: 60,
          rows: 20,
          data(_terminal, bytes) {
            seen += decoder.decode(bytes, { stream: true })
          },
        },
      },
    )
    await child.exited
    return seen.replaceAll('\r', '')
  }
  const coloured = await inTerminal({})
  expect(coloured).toContain('\x1b[1m')
  const plain = await inTerminal({ NO_COLOR: '1' })
  expect(plain).not.toContain('\x1b[')
  const lines = plain.trimEnd().split('\n')
  expect(lines.length).toBeGreaterThan(3)
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(60)
  expect(plain).toContain('…')
})

describe('an admin API behind TLS', () => {
  const fixture = (name: string) => join(import.meta.dir, '../fixtures/tls', name)
  let secure: Executable
  beforeAll(async () => {
    secure = await startExecutable({
      config: { admin: { tls: { cert_file: fixture('server.crt'), key_file: fixture('server.key') } } },
    })
  })
  afterAll(() => secure.dispose())

  test('is refused without its authority, taken with --ca-file', async () => {
    const url = secure.adminUrl.replace('http:', 'https:')
    expect(await aisix(['status', '--url', url])).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('is not trusted: name its authority with --ca-file'),
    })
    expect(await aisix(['status', '--url', url, '--ca-file', fixture('server.crt')])).toMatchObject({ exit: 0, stderr: '' })
    const config = join(secure.folder, 'config.yaml')
    expect(await aisix(['status', '--config', config, '--ca-file', fixture('server.crt')])).toMatchObject({ exit: 0, stderr: '' })
    const empty = join(secure.folder, 'empty.pem')
    writeFileSync(empty, '')
    expect(await aisix(['status', '--url', url, '--ca-file', empty])).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('holds no PEM certificate'),
    })
  })
})

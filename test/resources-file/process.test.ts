/** The executable with a resources file, and what its commands make of one. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EXECUTABLE, type Executable, type ExecutableOptions, startExecutable } from '../executable.ts'
import { chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { until } from '../gateway.ts'
import { operatorOf } from '../operator.ts'

const GUIDE = await Bun.file(join(import.meta.dir, '../fixtures/guide.sh')).text()
const CALLER_KEY = 'sk-byo-caller'

let upstream: FakeUpstream
let folder: string
let gateway: Executable | undefined

beforeEach(async () => {
  upstream = await fakeUpstream()
  folder = mkdtempSync(join(tmpdir(), 'aisix-file-'))
})

afterEach(async () => {
  await gateway?.dispose()
  gateway = undefined
  upstream.stop()
  rmSync(folder, { recursive: true, force: true })
})

const file = () => join(folder, 'resources.yaml')

/** The guide's resources as a file. */
const guide = (alias = 'llama-3-private') => `_format_version: "1"
provider_keys:
  - display_name: vllm-private
    provider: vllm
    adapter: openai
    secret: \${VLLM_SECRET}
    api_base: ${upstream.url}
models:
  - display_name: ${alias}
    provider: vllm
    model_name: meta-llama/Llama-3.1-8B-Instruct
    provider_key: vllm-private
    cost: {input_per_1k: 0.0, output_per_1k: 0.0}
api_keys:
  - display_name: byo-caller
    key_env: CALLER_KEY
    allowed_models: [${alias}]
`
const ENV = { AISIX_RESOURCES_FILE: 'resources.yaml', VLLM_SECRET: 'not-used-by-vllm', CALLER_KEY }

async function start(options: ExecutableOptions = {}): Promise<Executable> {
  gateway = await startExecutable({ folder, env: ENV, ...options })
  return gateway
}

/** Writes the file as it should be written: elsewhere, then moved into place. */
function write(text: string): void {
  writeFileSync(`${file()}.new`, text)
  renameSync(`${file()}.new`, file())
}

const chat = ({ proxyUrl }: Executable, model: string, more: Record<string, unknown> = {}, key = CALLER_KEY) =>
  fetch(`${proxyUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model, messages: [{ role: 'user', content: 'Hello' }], ...more }),
  })

type ConfigStatus = {
  state: string
  source: { type: string; source_hash: string }
  applied: { config_hash: string; apply_seq: number; resource_counts: Record<string, number> }
  last_failure: null | { last_error_kind: string; last_error: string }
  rejected: { resource_kind: string; resource_id: string; last_error: string }[]
}

async function status({ statusUrl }: Executable): Promise<ConfigStatus> {
  return JSON.parse(await (await fetch(`${statusUrl}/status/config`)).text())
}

/** Sends SIGHUP and waits until as many loads have been made as there should be then. */
async function hangUp(running: Executable): Promise<void> {
  const before = await loads(running)
  running.signal('SIGHUP')
  while ((await loads(running)) === before) await Bun.sleep(5)
}

async function loads({ statusUrl }: Executable): Promise<number> {
  const page = await (await fetch(`${statusUrl}/metrics`)).text()
  return Number(/^aisix_config_reloads_total (\d+)$/m.exec(page)?.[1])
}

type Run = { stdout: string; stderr: string; exit: number }

async function aisix(args: string[], env: Record<string, string> = {}): Promise<Run> {
  const child = Bun.spawn([EXECUTABLE, ...args], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '', ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
  return { stdout, stderr, exit: await child.exited }
}

describe('a gateway that starts from a file', () => {
  test('answers the chat of the guide, and keeps no store', async () => {
    write(guide())
    const running = await start()
    const commands = (GUIDE.split('# step chat\n')[1] ?? '').replaceAll('http://127.0.0.1:3000', running.proxyUrl)
    const shell = Bun.spawn(['bash', '-c', commands], {
      env: { PATH: process.env.PATH ?? '', AISIX_API_KEY: CALLER_KEY },
      stdout: 'pipe',
    })
    expect(await shell.stdout.json()).toMatchObject({
      object: 'chat.completion',
      model: 'llama-3-private',
      choices: [{ message: { content: 'Hello' } }],
    })
    expect(upstream.last().header('authorization')).toBe('Bearer not-used-by-vllm')
    expect(upstream.last().json()).toMatchObject({ model: 'meta-llama/Llama-3.1-8B-Instruct' })
    expect(existsSync(join(folder, 'aisix.db'))).toBe(false)
    expect(await running.stop()).toBe(0)
  })

  test('shows its resources to operators, and takes no write, in words that lead to the file', async () => {
    write(guide())
    const running = await start()
    const { ask } = operatorOf(running)
    const [model] = JSON.parse(await (await ask('GET', 'models')).text())
    expect(model).toMatchObject({ revision: 1, value: { display_name: 'llama-3-private' } })
    expect(await (await ask('GET', 'provider_keys')).json()).toMatchObject([{ value: { secret: '***' } }])
    const attempts = [
      ask('POST', 'models', { display_name: 'x' }),
      ask('PUT', `models/${model.id}`, model.value),
      ask('DELETE', `models/${model.id}`),
      ask('POST', 'apikeys/any/rotate'),
      ask('POST', 'provider_keys'),
    ]
    for (const answer of await Promise.all(attempts)) {
      expect(answer.status).toBe(409)
      const { error_msg } = JSON.parse(await answer.text())
      expect(error_msg).toContain('file-managed')
      expect(error_msg).toContain(file())
    }
    const stranger = await fetch(`${running.adminUrl}/admin/v1/models`, { method: 'POST', body: '{}' })
    expect(stranger.status).toBe(401)
    expect(await stranger.text()).not.toContain(file())
    const playground = await fetch(`${running.adminUrl}/playground/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'llama-3-private', messages: [{ role: 'user', content: 'Hello' }] }),
    })
    expect(playground.status).toBe(200)
    const health = await (await ask('GET', 'health')).json()
    expect(health).toMatchObject({ status: 'ok', store: { connected: true } })
    expect(health).not.toHaveProperty('config')
    expect(await status(running)).toMatchObject({ state: 'synced', source: { type: 'file' }, applied: { apply_seq: 1 } })
  })

  test.each([
    ['that is not there', undefined, 'resources.yaml: 1 error(s):\n  - (file): no such file\n'],
    ['that is no YAML', 'models:\n\t- x\n', '  - (file): line 2, column 1: a tab in the indentation'],
    [
      'with mistakes',
      '_format_version: 1\nmodels: [{display_name: a}]\napi_keys: [{display_name: b, key_env: NO_SUCH, allowed_models: [c]}]\n',
      '4 error(s):\n  - (file): `_format_version` must be a string',
    ],
  ])('ends with 1 and the report for one %s, before it listens anywhere', async (_what, text, report) => {
    if (text !== undefined) write(text)
    const child = start().then(
      () => 'started',
      (error: Error) => error.message,
    )
    const message = await child
    expect(message).toContain('the gateway did not become ready')
    expect(message).toContain(report)
    expect(message).not.toContain('gateway started')
    expect(message).not.toContain('listener')
  })
})

describe('SIGHUP', () => {
  test('takes over what the file says now: renamed, removed, added', async () => {
    write(guide())
    const running = await start()
    write(guide('llama-renamed'))
    // The file alone changes nothing.
    expect((await chat(running, 'llama-3-private')).status).toBe(200)
    await hangUp(running)
    expect((await chat(running, 'llama-renamed')).status).toBe(200)
    expect((await chat(running, 'llama-3-private')).status).toBe(404)
    const { ask } = operatorOf(running)
    expect(await (await ask('GET', 'models')).json()).toMatchObject([{ revision: 2, value: { display_name: 'llama-renamed' } }])
    write(guide('llama-renamed').replace(/api_keys:[\s\S]*/, ''))
    await hangUp(running)
    expect((await chat(running, 'llama-renamed')).status).toBe(401)
    expect(await status(running)).toMatchObject({
      state: 'synced',
      applied: { apply_seq: 3, resource_counts: { provider_keys: 1, models: 1 } },
    })
  })

  test('of a bad file leaves the last good one in force and says why; a good one puts it right', async () => {
    write(guide())
    const running = await start()
    write(`${guide('other')}  - display_name: second\n    key_env: NO_SUCH_VARIABLE\n    allowed_models: [nothing]\n`)
    await hangUp(running)
    expect((await chat(running, 'llama-3-private')).status).toBe(200)
    const { state, source, applied, rejected, last_failure } = await status(running)
    expect(state).toBe('out_of_sync')
    expect(source.source_hash).not.toBe(applied.config_hash)
    expect(rejected).toMatchObject([
      { resource_kind: 'api_keys', resource_id: 'second', last_error: expect.stringContaining('NO_SUCH_VARIABLE') },
      { resource_kind: 'api_keys', resource_id: 'second' },
    ])
    expect(last_failure?.last_error_kind).toBe('schema_failed')
    // The log is written a moment behind.
    await until('the log says so', () => running.stderr().includes('the resources file was refused'))
    expect(await (await operatorOf(running).ask('GET', 'health')).json()).toMatchObject({
      store: { problem: expect.stringContaining('/status/config') },
    })
    write(guide('other'))
    await hangUp(running)
    expect((await chat(running, 'other')).status).toBe(200)
    expect(await status(running)).toMatchObject({
      state: 'synced',
      applied: { apply_seq: 2 },
      rejected: [],
      last_failure: { last_error_kind: 'schema_failed' },
    })
  })

  test('while a stream is under way lets it end as it began', async () => {
    const go = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'one' }))}\n\n`)
      await go.promise
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'two' }))}\n\ndata: [DONE]\n\n`)
      await connection.endChunks()
    })
    write(guide())
    const running = await start()
    const stream = await chat(running, 'llama-3-private', { stream: true })
    write('_format_version: "1"\n')
    await hangUp(running)
    expect((await status(running)).state).toBe('empty')
    go.resolve()
    const text = await stream.text()
    expect(text).toContain('two')
    expect(text).toContain('"model":"llama-3-private"')
    expect(text).toEndWith('data: [DONE]\n\n')
  })

  test('in a storm, with the file good and bad by turns, fails no request', async () => {
    write(guide())
    const running = await start()
    let isOver = false
    const statuses = new Map<number, number>()
    const callers = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        const answer = await chat(running, 'llama-3-private')
        await answer.arrayBuffer()
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
      }
    })
    const before = await loads(running)
    for (let i = 0; i < 60; i++) {
      write(i % 3 === 2 ? '_format_version: "1"\nmodels: [' : `${guide()}# ${i}\n`)
      running.signal('SIGHUP')
      await Bun.sleep(5)
    }
    write(`${guide()}# last\n`)
    await hangUp(running)
    const hash = new Bun.CryptoHasher('sha256').update(`${guide()}# last\n`).digest('hex')
    while ((await status(running)).applied.config_hash !== hash) await Bun.sleep(5)
    isOver = true
    await Promise.all(callers)
    expect([...statuses.keys()]).toEqual([200])
    expect(await loads(running)).toBeGreaterThan(before)
    expect((await status(running)).state).toBe('synced')
  })

  test('does not read the environment again: a variable keeps the value of the start', async () => {
    write(guide())
    const running = await start()
    write(guide().replace('key_env: CALLER_KEY', 'key_env: ADDED_LATER'))
    await hangUp(running)
    expect((await status(running)).rejected).toMatchObject([
      { last_error: expect.stringContaining('`ADDED_LATER` is unset or empty') },
    ])
  })
})

describe('aisix validate', () => {
  test('says OK with the number of resources, or the report', async () => {
    write(guide())
    expect(await aisix(['validate', '--resources', 'resources.yaml'], ENV)).toEqual({
      stdout: 'OK: resources.yaml loaded 3 resource(s)\n',
      stderr: '',
      exit: 0,
    })
    const { stdout, stderr, exit } = await aisix(['validate', '--resources=resources.yaml'])
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(stderr).toBe(`resources file resources.yaml: 2 error(s):
  - provider_keys[0] ("vllm-private"): field \`secret\`: environment variable \`VLLM_SECRET\` is unset or empty
  - api_keys[0] ("byo-caller"): field \`key_env\`: environment variable \`CALLER_KEY\` is unset or empty
`)
  })
})

describe('aisix export', () => {
  /** Fills a store with every kind, and with names and values that are hard to write. */
  async function fill(running: Executable): Promise<void> {
    const { write: create } = operatorOf(running)
    const providerKey = await create('provider_keys', {
      display_name: 'vLLM "private": ${HOME} $$ #1',
      provider: 'vllm',
      adapter: 'openai',
      secret: 'sk-$${upstream}-0001',
      api_base: upstream.url,
      request: {
        default_headers: { 'x-tenant': 'tenant-${request.api_key.name}', 'x-empty': '' },
        default_body_fields: { chat_template_kwargs: { mode: 'deep$' }, seed: 7 },
      },
    })
    const model = await create('models', {
      display_name: 'llama',
      provider: 'vllm',
      model_name: 'org/llama: 8b',
      provider_key_id: providerKey,
    })
    await create('models', { display_name: 'vllm/*', provider: 'vllm', model_name: '*', provider_key_id: providerKey })
    await create('models', { display_name: 'group', routing: { targets: [{ model: 'llama', weight: 2 }] } })
    const hash = (key: string) => new Bun.CryptoHasher('sha256').update(key).digest('hex')
    const key = await create('apikeys', {
      key_hash: hash('sk-one'),
      allowed_models: ['llama', 'group', 'vllm/*'],
      display_name: 'one',
    })
    await create('apikeys', { key_hash: hash('sk-two'), allowed_models: ['llama'], display_name: 'twin', disabled: true })
    await create('apikeys', {
      key_hash: hash('sk-three'),
      allowed_models: ['llama'],
      display_name: 'twin',
      rate_limit: { rpm: 0 },
    })
    await create('apikeys', { key_hash: hash('sk-four'), allowed_models: [], expires_at: '2020-01-01T00:00:00Z' })
    await create('rate_limit_policies', {
      name: 'classic',
      scope: 'model',
      scope_ref: model,
      window: 'minute',
      max_requests: 1000,
    })
    await create('rate_limit_policies', {
      name: 'nested',
      limits: { rpd: 100000 },
      conditions: [
        {
          logic: 'or',
          children: [
            { dimension: 'api_key', operator: 'in', value: [key] },
            { dimension: 'model', operator: '==', value: model },
          ],
        },
      ],
    })
    await create('budgets', {
      name: 'budget',
      scope: 'api_key',
      scope_ref: key,
      limit_tokens: 1_000_000,
      period: 'day',
      action: 'warn',
    })
    await create('observability_exporters', {
      name: 'collector',
      enabled: false,
      kind: 'otlp_http',
      endpoint: 'http://127.0.0.1:4318/v1/traces',
      headers: { authorization: 'Bearer collector-0001' },
    })
  }

  /** What callers see: the models of each key, and how each question is answered. */
  async function seen(running: Executable) {
    const answers: unknown[] = []
    for (const key of ['sk-one', 'sk-two', 'sk-three', 'sk-four', 'sk-unknown']) {
      const models = await fetch(`${running.proxyUrl}/v1/models`, { headers: { authorization: `Bearer ${key}` } })
      const list = JSON.parse(await models.text())
      answers.push([
        key,
        models.status,
        Array.isArray(list.data) ? list.data.map(({ id }: { id: string }) => id) : list.error?.code,
      ])
      for (const model of ['llama', 'group', 'vllm/any', 'nothing']) {
        const before = upstream.requests.length
        const answer = await chat(running, model, {}, key)
        const body = JSON.parse(await answer.text())
        const asked = upstream.requests
          .slice(before)
          .map(request => [
            request.header('authorization'),
            request.header('x-tenant'),
            request.header('x-empty'),
            request.json(),
          ])
        answers.push([key, model, answer.status, body.model ?? body.error?.code ?? body.error?.type, asked])
      }
    }
    return answers
  }

  test('gives a file that a gateway answers from as it did from its store', async () => {
    const before = await start({ env: {} })
    await fill(before)
    const fromStore = await seen(before)
    expect(fromStore).toContainEqual([
      'sk-one',
      'llama',
      200,
      'llama',
      [
        [
          `Bearer sk-$\${upstream}-0001`,
          'tenant-one',
          '',
          expect.objectContaining({ seed: 7, chat_template_kwargs: { mode: 'deep$' } }),
        ],
      ],
    ])
    // The store is in use meanwhile.
    const exported = await aisix(['export', '--config', 'config.yaml', '-o', 'resources.yaml'])
    expect(exported.exit).toBe(0)
    expect(exported.stdout).toBe('')
    expect(statSync(file()).mode & 0o777).toBe(0o600)
    const text = await Bun.file(file()).text()
    for (const secret of ['upstream}-0001', 'collector-0001', 'tenant-$', 'deep$']) {
      expect(text).not.toContain(secret)
      expect(exported.stderr).not.toContain(secret)
    }
    expect(exported.stderr).toEndWith('Exported 12 resource(s) to resources.yaml\n')
    const variables = [...exported.stderr.matchAll(/^set (AISIXSECRET_\w+): (\S+) of/gm)].map(([, name = '', field = '']) => [
      field,
      name,
    ])
    expect(variables.map(([field]) => field).sort()).toEqual([
      'api_key',
      'headers.authorization',
      'request.default_body_fields.chat_template_kwargs.mode',
      'request.default_headers.x-tenant',
    ])
    const values: Record<string, string> = {
      api_key: 'sk-$${upstream}-0001',
      'headers.authorization': 'Bearer collector-0001',
      'request.default_body_fields.chat_template_kwargs.mode': 'deep$',
      'request.default_headers.x-tenant': 'tenant-${request.api_key.name}',
    }
    const env = Object.fromEntries(variables.map(([field = '', name = '']) => [name, values[field] ?? '']))
    expect(await aisix(['validate', '--resources', 'resources.yaml'], env)).toMatchObject({
      stdout: 'OK: resources.yaml loaded 12 resource(s)\n',
      exit: 0,
    })
    expect(await before.stop()).toBe(0)
    // The same from the database itself, with nobody there.
    expect(await aisix(['export', '--db', 'aisix.db'])).toMatchObject({ stdout: text, exit: 0 })
    expect(existsSync(join(folder, 'aisix.db-wal'))).toBe(false)

    const after = await start({ env: { ...env, AISIX_RESOURCES_FILE: 'resources.yaml' } })
    expect(await seen(after)).toEqual(fromStore)
  })

  test('writes credentials only when it is told to, loudly', async () => {
    const running = await start({ env: {} })
    await fill(running)
    const { stdout, stderr, exit } = await aisix(['export', '--reveal-secrets'])
    expect(exit).toBe(0)
    expect(stderr).toContain('WARNING: THE FILE HOLDS CREDENTIALS IN CLEAR TEXT')
    expect(stdout).toContain('api_key: "sk-$$$${upstream}-0001"')
    write(stdout)
    expect(await aisix(['validate', '--resources', 'resources.yaml'])).toMatchObject({ stderr: '', exit: 0 })
  })

  test('ends with 1 for what the file cannot give back, and writes it all the same', async () => {
    const running = await start({ env: {} })
    const { write: create } = operatorOf(running)
    await create('models', { display_name: 'orphan', provider: 'vllm', model_name: 'x', provider_key_id: 'gone' })
    const { stdout, stderr, exit } = await aisix(['export'])
    expect(exit).toBe(1)
    expect(stdout).toContain('display_name: "orphan"')
    expect(stderr).toContain('error: models[0] ("orphan"): field `provider_key_id`: is the id of no entry of provider_keys')
  })

  test('says what is wrong with a store that it cannot read', async () => {
    writeFileSync(join(folder, 'other.db'), 'no database')
    expect(await aisix(['export', '--db', 'other.db'])).toMatchObject({
      stdout: '',
      exit: 1,
      stderr: expect.stringContaining('export failed: other.db is not an SQLite database'),
    })
    expect(await aisix(['export', '--db', 'missing.db'])).toMatchObject({
      stdout: '',
      exit: 1,
      stderr: expect.stringContaining('there is no store file missing.db'),
    })
  })
})

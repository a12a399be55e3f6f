import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { startExecutable } from '../executable.ts'
import { chatAnswer, fakeUpstream } from '../fake-upstream.ts'
import { aisix } from './aisix.ts'
import { runCli } from './io.ts'

const FIXTURE = join(import.meta.dir, '../fixtures/litellm.yaml')

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-litellm-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** What becomes of a configuration, and the notes without the path of the file. */
async function imported(yaml: string) {
  const file = join(folder, 'in.yaml')
  writeFileSync(file, yaml)
  const { stdout, stderr, exit } = await runCli(['import', 'litellm', file])
  return { document: parse(stdout), stdout, notes: stderr.replaceAll(`${file}:`, ''), exit }
}
const list = (...entries: unknown[]) => `model_list: ${JSON.stringify(entries)}\n`
const entry = (name: string, params: Record<string, unknown> = {}, info?: unknown) => ({
  model_name: name,
  litellm_params: { model: `hosted_vllm/${name}`, api_base: 'http://10.0.0.1:8000/v1', ...params },
  ...(info === undefined ? {} : { model_info: info }),
})

describe('a configuration of 20 models, router settings and keys', () => {
  test('imports, validates and serves', async () => {
    const upstream = await fakeUpstream()
    upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
    const file = join(folder, 'imported.yaml')
    expect((await aisix(['import', 'litellm', FIXTURE, '-o', file])).exit).toBe(0)
    const text = readFileSync(file, 'utf8')
    const names = [...text.matchAll(/\$\{(\w+)\}|key_env: (\w+)/g)].map(([, variable, keyEnv]) => variable ?? keyEnv ?? '')
    const env: Record<string, string> = Object.fromEntries(names.map(name => [name, `value-of-${name}`]))
    Object.assign(env, { VLLM_A: upstream.url, LITELLM_MASTER_KEY: 'sk-master' })
    const checked = await aisix(['validate', '--resources', file], { env })
    expect(checked).toMatchObject({ stdout: expect.stringMatching(/^OK: .* loaded 35 resource/), exit: 0 })
    const gateway = await startExecutable({ env: { ...env, AISIX_RESOURCES_FILE: file } })
    try {
      for (const model of ['llama-3', 'gpt-3.5-turbo']) {
        const response = await fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
          method: 'POST',
          headers: { authorization: 'Bearer sk-master', 'content-type': 'application/json' },
          body: JSON.stringify({ model, messages: [{ role: 'user', content: 'hello' }] }),
        })
        expect(response.status).toBe(200)
        expect(upstream.last().header('authorization')).toBe('Bearer value-of-VLLM_KEY')
        expect(upstream.last().json()).toMatchObject({ model: 'meta-llama/Llama-3.1-8B-Instruct' })
      }
    } finally {
      await gateway.dispose()
      upstream.stop()
    }
  })

  test('messages hold no secret, every foreign vendor is named, and each note has its place', async () => {
    const { stdout, stderr } = await runCli(['import', 'litellm', FIXTURE])
    const secrets = [...readFileSync(FIXTURE, 'utf8').matchAll(/[a-z-]*literal[a-z-]*/g)].map(([secret]) => secret)
    expect(secrets.length).toBeGreaterThan(5)
    for (const secret of secrets) expect(stderr).not.toContain(secret)
    for (const dropped of ['azure-literal', 'aws-literal', 'redis-literal', 'database-literal', 'langfuse-literal'])
      expect(stdout).not.toContain(dropped)
    for (const vendor of ['azure', 'bedrock', 'vertex_ai']) expect(stderr).toContain(`provider ${vendor} speaks no dialect`)
    const notes = stderr.trimEnd().split('\n').slice(0, -2)
    for (const note of notes) expect(note).toMatch(/^\S+litellm\.yaml:\d+:\d+: [^:]+: /)
    expect(stderr).toEndWith(`13 provider keys, 21 models and 1 keys imported; ${notes.length} notes\n`)
  })

  test('every key of the file is either in the result or in a note', async () => {
    const { stderr } = await runCli(['import', 'litellm', FIXTURE])
    for (const key of [
      'allowed_fails',
      'redis_host',
      'redis_password',
      'drop_params',
      'request_timeout',
      'cache',
      'callbacks',
      'unheard_of',
      'database_url',
      'hidden',
      'nobody',
      'LANGFUSE_SECRET_KEY',
      'max_tokens',
      'x-common',
    ]) {
      expect(stderr).toContain(key)
    }
  })

  test('-o writes a file of its own, for its owner alone, and replaces none', async () => {
    const output = join(folder, 'out.yaml')
    const { stdout, stderr, exit } = await runCli(['import', 'litellm', FIXTURE, '-o', output])
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 0 })
    expect(stderr).toContain(`imported to ${output}`)
    expect(statSync(output).mode & 0o777).toBe(0o600)
    expect(readFileSync(output, 'utf8')).toStartWith('_format_version: "1"\n')
    const again = await runCli(['import', 'litellm', FIXTURE, '-o', output])
    expect(again).toEqual({ stdout: '', stderr: `aisix: ${output} is there already: remove it, or name another\n`, exit: 1 })
  })
})

describe('a model', () => {
  test('has limits, prices, times and retries in our units', async () => {
    const { document } = await imported(
      list(
        entry(
          'm',
          { rpm: '60', tpm: 1000, timeout: 1.5, stream_timeout: 2, max_retries: 3 },
          { input_cost_per_token: 0.0000025, output_cost_per_token: 1e-5 },
        ),
      ),
    )
    expect(document.models).toEqual([
      {
        display_name: 'm',
        provider: 'vllm',
        model_name: 'm',
        provider_key: 'vllm-10.0.0.1:8000',
        timeout: 1500,
        stream_timeout: 2000,
        retries: 3,
        rate_limit: { rpm: 60, tpm: 1000 },
        cost: { input_per_1k: 0.0025, output_per_1k: 0.01 },
      },
    ])
  })

  test.each([
    [
      { model: 'gpt-4o', api_base: undefined },
      { provider: 'openai', model_name: 'gpt-4o' },
      '${OPENAI_API_KEY}',
      'https://api.openai.com/v1',
    ],
    [{ model: 'openai/org/m' }, { provider: 'openai-compatible', model_name: 'org/m' }, 'not-used', 'http://10.0.0.1:8000/v1'],
    [{ model: 'org/m' }, { provider: 'openai-compatible', model_name: 'org/m' }, 'not-used', 'http://10.0.0.1:8000/v1'],
    [
      { model: 'ollama/m:8b', api_base: 'http://o:11434/' },
      { provider: 'ollama', model_name: 'm:8b' },
      'not-used',
      'http://o:11434/v1',
    ],
    [
      { model: 'ollama/m:8b', api_base: 'os.environ/OLLAMA' },
      { provider: 'ollama', model_name: 'm:8b' },
      'not-used',
      '${OLLAMA}/v1',
    ],
    [
      { model: 'groq/m', api_base: undefined, api_key: 'a$b${C}' },
      { provider: 'groq', model_name: 'm' },
      'a$$b$${C}',
      'https://api.groq.com/openai/v1',
    ],
  ])('%j', async (params, model, secret, base) => {
    const { document, exit } = await imported(list(entry('m', params)))
    expect(exit).toBe(0)
    expect(document.models).toMatchObject([model])
    expect(document.provider_keys).toMatchObject([{ secret, api_base: base }])
  })

  test.each([
    [{ model: 'azure/m' }, 'provider azure speaks no dialect that this gateway has; the entry is left out'],
    [{ model: 'm', custom_llm_provider: 'bedrock' }, 'provider bedrock speaks no dialect'],
    [{ api_base: undefined }, 'has no api_base, which a server of vllm needs'],
    [{ model: 'my-model', api_base: undefined }, 'names no provider in front of the model, and no api_base'],
    [{ model: 'hosted_vllm/*' }, 'a `*` here needs one in model_name'],
    [{ model: 7.5, api_base: ['x'] }, 'expected a text; left out'],
    [{ rpm: 'many' }, 'litellm_params.rpm: expected a whole number of 0 or more; left out'],
    [{ rpm: 'os.environ/RPM' }, 'litellm_params.rpm: a number cannot come from a variable here'],
    [{ weight: -1 }, 'litellm_params.weight: expected a number of 0 or more'],
    [{ api_key: 'os.environ/NOT A NAME' }, 'litellm_params.api_key: names no variable that could exist'],
    [
      { extra_headers: { Authorization: 'Bearer x', 'bad name': '1' } },
      'extra_headers.Authorization: is no header that can be set here',
    ],
    [{ something_new: { deep: 1 } }, 'litellm_params.something_new: has no counterpart; left out'],
  ])('%j is told', async (params, note) => {
    const { notes, exit } = await imported(list(entry('m', params)))
    expect(exit).toBe(0)
    expect(notes).toContain(note)
    expect(notes).not.toContain('NOT A NAME')
  })

  test('several of one server and credential share a provider key; other credentials and headers have their own', async () => {
    const { document } = await imported(
      list(entry('a'), entry('b'), entry('c', { api_key: 'x' }), entry('d', { extra_headers: { 'X-A': '1' } })),
    )
    expect(document.models.map(({ provider_key }: { provider_key: string }) => provider_key)).toEqual([
      'vllm-10.0.0.1:8000',
      'vllm-10.0.0.1:8000',
      'vllm-10.0.0.1:8000-2',
      'vllm-10.0.0.1:8000-3',
    ])
  })
})

describe('groups', () => {
  const groupOf = (document: { models: { display_name: string; routing?: unknown }[] }, name: string) =>
    document.models.find(({ display_name }) => display_name === name)?.routing

  test('one name several times is a group, whose members keep clear of names that are taken', async () => {
    const { document } = await imported(list(entry('m', { weight: 0.5 }), entry('m', { weight: 0.25, order: 2 }), entry('m-1')))
    expect(groupOf(document, 'm')).toEqual({
      strategy: 'round_robin',
      targets: [
        { model: 'm-2', weight: 50 },
        { model: 'm-3', weight: 25, priority: -1 },
      ],
      retry_on_429: true,
    })
    const names = document.models.map(({ display_name }: { display_name: string }) => display_name)
    expect(new Set(names).size).toBe(names.length)
  })

  test.each([
    [
      [{ weight: 1 }, { weight: 3 }],
      [1, 3],
    ],
    [
      [{ weight: 0.5 }, { weight: 2 }],
      [50, 200],
    ],
    [
      [{ rpm: 600 }, { rpm: 60, tpm: 9 }],
      [600, 60],
    ],
    [
      [{ weight: 2, rpm: 5 }, { rpm: 60 }],
      [2, undefined],
    ],
    [
      [{}, {}],
      [undefined, undefined],
    ],
  ])('shares %j are the weights %j: those of one measure, in one scale', async ([a = {}, b = {}], weights) => {
    const { document } = await imported(list(entry('m', a), entry('m', b)))
    const group: { routing: { targets: { weight?: number }[] } } = document.models.at(-1)
    expect(group.routing.targets.map(({ weight }) => weight)).toEqual(weights)
  })

  test('fallbacks come after, one name after the other, each with all that it stands for', async () => {
    const { document } = await imported(
      `${list(entry('a'), entry('b'), entry('b'), entry('c'))}router_settings: {fallbacks: [{a: [b, c]}], routing_strategy: latency-based-routing}\n`,
    )
    expect(groupOf(document, 'a')).toEqual({
      strategy: 'failover',
      targets: [{ model: 'a-1' }, { model: 'b-1', priority: -1 }, { model: 'b-2', priority: -1 }, { model: 'c', priority: -2 }],
      retry_on_429: true,
    })
    expect(groupOf(document, 'b')).toMatchObject({ strategy: 'least_latency' })
    expect(groupOf(document, 'c')).toBeUndefined()
  })

  test('tags count only where LiteLLM obeys them, and what is tried last is not shut out by them', async () => {
    const models = list(entry('a', { tags: ['free'] }), entry('a', { tags: ['paid'] }), entry('b'))
    const without = await imported(`${models}router_settings: {fallbacks: [{a: [b]}]}\n`)
    expect(JSON.stringify(groupOf(without.document, 'a'))).not.toContain('free')
    expect(without.notes).toContain('litellm_params.tags: have no effect without enable_tag_filtering')
    const { document } = await imported(`${models}router_settings: {fallbacks: [{a: [b]}], enable_tag_filtering: true}\n`)
    expect(groupOf(document, 'a')).toMatchObject({
      targets: [{ tags: ['free'] }, { tags: ['paid'] }, { model: 'b', tags: ['free', 'paid', 'default'] }],
    })
  })

  test('an alias stands for what it names, and never in the place of a model', async () => {
    const { document, notes } = await imported(
      `${list(entry('a'), entry('b'))}router_settings: {model_group_alias: {x: a, b: a, y: nobody}}\n`,
    )
    expect(groupOf(document, 'x')).toMatchObject({ targets: [{ model: 'a' }] })
    expect(groupOf(document, 'b')).toBeUndefined()
    expect(notes).toContain('model_group_alias.b: a model of this name is there already')
    expect(notes).toContain('model_group_alias.y: stands for no model that was imported')
  })
})

test('a master key that stands in the file becomes its hash', async () => {
  const { document, stdout, notes } = await imported(`${list(entry('m'))}general_settings: {master_key: sk-1234}\n`)
  expect(document.api_keys).toEqual([
    {
      display_name: 'litellm-master-key',
      key_hash: new Bun.CryptoHasher('sha256').update('sk-1234').digest('hex'),
      allowed_models: ['*'],
    },
  ])
  expect(stdout + notes).not.toContain('sk-1234')
})

describe('anchors', () => {
  test('and merge keys say what they stand for; a reference through one stays a reference', async () => {
    const { document } = await imported(`
x: &base {api_base: "http://10.0.0.1:8000/v1", api_key: os.environ/K, timeout: 5}
model_list:
  - model_name: a
    litellm_params: {<<: *base, model: vllm/a, timeout: 7}
  - model_name: b
    litellm_params: {<<: *base, model: vllm/b}
`)
    expect(document.provider_keys).toMatchObject([{ secret: '${K}' }])
    expect(document.models).toMatchObject([{ timeout: 7000 }, { timeout: 5000 }])
  })

  test('that stand for too much are refused before they take memory', async () => {
    const bomb = [
      'a: &a [x,x,x,x,x,x,x,x,x,x]',
      ...'bcdefgh'.split('').map((name, i) => `${name}: &${name} [${Array(10).fill(`*${'abcdefg'[i]}`).join(',')}]`),
    ].join('\n')
    const { notes, exit } = await imported(`${bomb}\nmodel_list: []\n`)
    expect(exit).toBe(1)
    expect(notes).toContain('aliases stand for more than 10000 values')
  })
})

describe('what is no configuration is refused in one line, and nothing is written', () => {
  test.each([
    ['[1, 2]', '1:1: expected a mapping'],
    ['just words', '1:1: expected a mapping'],
    ['model_list: []\nmodel_list: []\n', '2:1: model_list: the key occurs twice'],
    ['model_list: [{model_name: a, model_name: b}]\n', 'model_list[0].model_name: the key occurs twice'],
    ['a: 1\n---\nb: 2\n', 'expected one YAML document'],
    ['model_list:\n\t- x\n', 'a tab in the indentation'],
    ['model_list: *nowhere\n', 'alias'],
    ['a: !!python/object:os.system {}\n', 'unknown tag'],
  ])('%j', async (yaml, message) => {
    const { stdout, notes, exit } = await imported(yaml)
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(notes).toStartWith('aisix: nothing was imported: ')
    expect(notes).toContain(message)
  })

  test('a file that is not there', async () => {
    const output = join(folder, 'never.yaml')
    expect(await runCli(['import', 'litellm', join(folder, 'none.yaml'), '-o', output])).toEqual({
      stdout: '',
      stderr: `aisix: nothing was imported: ${join(folder, 'none.yaml')}: no such file\n`,
      exit: 1,
    })
    expect(existsSync(output)).toBe(false)
  })

  test('an empty one, and one without models, make an empty resources file and say so', async () => {
    for (const yaml of ['', '# nothing\n', 'model_list:\n', 'model_list: 7\n', 'model_list: [7, null]\n']) {
      const { stdout, notes, exit } = await imported(yaml)
      expect({ stdout, exit }).toEqual({ stdout: '_format_version: "1"\n', exit: 0 })
      expect(notes).toMatch(/has no model_list|expected a list|expected a mapping/)
    }
  })
})

import { afterEach, beforeEach, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Executable, startExecutable } from './executable.ts'
import { type FakeUpstream, fakeUpstream } from './fake-upstream.ts'

const GUIDE = await Bun.file(join(import.meta.dir, 'fixtures/guide.sh')).text()
const STEPS = new Map(
  GUIDE.split(/^# step /m)
    .slice(1)
    .map((text): [string, string] => {
      const lineEnd = text.indexOf('\n')
      return [text.slice(0, lineEnd), text.slice(lineEnd + 1)]
    }),
)
/** The sample configuration's key, which the guide uses. */
const ADMIN_KEY = 'admin-local-only-change-me'
const UUID = expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/)
const HASH_OF_CALLER_KEY = new Bun.CryptoHasher('sha256').update('sk-byo-caller').digest('hex')

let upstream: FakeUpstream
let folder: string
let gateway: Executable

beforeEach(async () => {
  upstream = await fakeUpstream()
  folder = mkdtempSync(join(tmpdir(), 'aisix-guide-'))
  await start()
})

afterEach(async () => {
  await gateway.dispose()
  upstream.stop()
  rmSync(folder, { recursive: true, force: true })
})

async function start(): Promise<void> {
  gateway = await startExecutable({ folder, config: { admin: { admin_keys: [ADMIN_KEY] } } })
}

/** What the guide's first steps leave in the shell of its reader. */
const EXPORTS = `export AISIX_ADMIN_KEY="${ADMIN_KEY}" AISIX_API_KEY="sk-byo-caller"\n`

type Edit = (commands: string) => string

type StepOptions = { providerKeyId?: string; edit?: Edit }

/** Runs a step of the guide in bash. returns: what curl printed, which is JSON */
async function step(name: string, options: StepOptions = {}) {
  return JSON.parse(await run(name, options))
}

/** Runs a step of the guide in bash. returns: what curl printed */
async function run(name: string, { providerKeyId = '', edit = text => text }: StepOptions): Promise<string> {
  const printed = STEPS.get(name)
  if (printed === undefined) throw new Error(`the guide has no step ${name}`)
  const commands = edit(printed)
    .replaceAll('http://127.0.0.1:3000', gateway.proxyUrl)
    .replaceAll('http://127.0.0.1:3001', gateway.adminUrl)
    .replaceAll('http://10.0.0.5:8000', upstream.origin)
    .replaceAll('YOUR_PROVIDER_KEY_ID', providerKeyId)
  const child = Bun.spawn(['bash', '-c', EXPORTS + commands], { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
  expect({ exit: await child.exited, stderr }).toEqual({ exit: 0, stderr: '' })
  return stdout
}

/** The three writes of the guide. returns: what each was answered */
async function setUp(edit: Edit = text => text) {
  const providerKey = await step('provider-key', { edit })
  const model = await step('model', { providerKeyId: providerKey.id, edit })
  const callerKey = await step('caller-key', { edit })
  return { providerKey, model, callerKey }
}

async function list(kind: string): Promise<unknown[]> {
  const response = await fetch(`${gateway.adminUrl}/admin/v1/${kind}`, { headers: { authorization: `Bearer ${ADMIN_KEY}` } })
  const entries: unknown = await response.json()
  return Array.isArray(entries) ? entries : []
}

const lists = async () => ({
  providerKeys: await list('provider_keys'),
  models: await list('models'),
  callerKeys: await list('apikeys'),
})

async function expectChatWorks(): Promise<void> {
  const before = upstream.requests.length
  const answer = await step('chat')
  expect(answer).toMatchObject({
    object: 'chat.completion',
    model: 'llama-3-private',
    choices: [{ message: { role: 'assistant', content: 'Hello' } }],
  })
  expect(upstream.requests.length).toBe(before + 1)
}

test('the guide as printed: provider key, model, caller key, and a chat request that is answered under the alias', async () => {
  const { providerKey, model, callerKey } = await setUp()
  expect(providerKey).toMatchObject({
    id: UUID,
    revision: 1,
    value: { display_name: 'vllm-private', provider: 'vllm', adapter: 'openai', api_base: upstream.url },
  })
  expect(JSON.stringify(providerKey)).not.toContain('not-used-by-vllm')
  expect(model).toMatchObject({
    id: UUID,
    revision: 1,
    value: {
      display_name: 'llama-3-private',
      provider: 'vllm',
      model_name: 'meta-llama/Llama-3.1-8B-Instruct',
      provider_key_id: providerKey.id,
      cost: { input_per_1k: 0, output_per_1k: 0 },
    },
  })
  expect(callerKey).toMatchObject({
    id: UUID,
    revision: 1,
    value: { key_hash: HASH_OF_CALLER_KEY, allowed_models: ['llama-3-private'] },
  })
  // No waiting in between: a write is seen by the very next request.
  await expectChatWorks()
  const seen = upstream.last()
  expect([seen.method, seen.path]).toEqual(['POST', '/v1/chat/completions'])
  expect(seen.header('authorization')).toBe('Bearer not-used-by-vllm')
  expect(seen.json()).toEqual({
    model: 'meta-llama/Llama-3.1-8B-Instruct',
    messages: [{ role: 'user', content: 'Say hello from the private model.' }],
    stream: false,
  })
})

test('after SIGTERM and a new start everything is there: same ids, same revisions, and the chat works', async () => {
  await setUp()
  const before = await lists()
  expect(before.models.length).toBe(1)
  expect(await gateway.stop()).toBe(0)
  await start()
  expect(await lists()).toEqual(before)
  await expectChatWorks()
})

test('after kill -9 right behind the last write everything is there', async () => {
  const { providerKey, model, callerKey } = await setUp()
  await gateway.kill()
  await start()
  const after = await lists()
  expect(after.providerKeys).toMatchObject([{ id: providerKey.id, revision: 1 }])
  expect(after.models).toMatchObject([{ id: model.id, revision: 1, value: model.value }])
  expect(after.callerKeys).toMatchObject([{ id: callerKey.id, revision: 1, value: callerKey.value }])
  await expectChatWorks()
})

const VARIANTS: [title: string, edit: Edit, mark: string][] = [
  [
    'with x-api-key in place of the bearer form',
    text => text.replace('Authorization: Bearer ${AISIX_ADMIN_KEY}', 'x-api-key: ${AISIX_ADMIN_KEY}'),
    'x-api-key',
  ],
  [
    'with /admin/v1/api_keys in place of /admin/v1/apikeys',
    text => text.replace('/admin/v1/apikeys', '/admin/v1/api_keys'),
    '/api_keys',
  ],
  ['with `api_key` in place of `secret`', text => text.replace('"secret"', '"api_key"'), '"api_key"'],
]
for (const [title, edit, mark] of VARIANTS) {
  test(`the guide works ${title}`, async () => {
    expect([...STEPS.values()].map(edit).join('')).toContain(mark)
    const { providerKey } = await setUp(edit)
    expect(providerKey.revision).toBe(1)
    await expectChatWorks()
    expect(upstream.last().header('authorization')).toBe('Bearer not-used-by-vllm')
  })
}

test('a caller may present its key in x-api-key', async () => {
  await setUp()
  const answer = await step('chat', { edit: text => text.replace('Authorization: Bearer ', 'x-api-key: ') })
  expect(answer.model).toBe('llama-3-private')
})

test('a model without cost is accepted', async () => {
  const { id } = await step('provider-key')
  const model = await step('model', { providerKeyId: id, edit: text => text.replace(/,\n"cost": \{[^}]*\}/, '') })
  expect(model).toMatchObject({ id: UUID, revision: 1 })
  expect(model.value.cost).toBeUndefined()
})

for (const missing of ['input_per_1k', 'output_per_1k']) {
  test(`a cost block without ${missing} is refused with 400 and words that name it`, async () => {
    const { id } = await step('provider-key')
    const printed = await run('model', {
      providerKeyId: id,
      edit: text =>
        text
          .replace(new RegExp(`"${missing}": 0\\.0,?\\n`), '')
          .replace('"input_per_1k": 0.0,', '"input_per_1k": 0.0')
          .replace('curl -sS', "curl -sS -w ' %{http_code}'"),
    })
    expect(printed).toEndWith(' 400')
    expect(JSON.parse(printed.slice(0, -4)).error_msg).toContain(missing)
    expect(await list('models')).toEqual([])
  })
}

/**
 * Follows the guide against a real inference engine, then has the official clients call it, and tells what was seen.
 * `make test-real`.
 *
 *   AISIX_REAL_BASE=http://10.0.0.5:8000/v1 AISIX_REAL_MODEL=meta-llama/Llama-3.1-8B-Instruct make test-real
 *
 * runs against that server. Without AISIX_REAL_BASE an engine is set up here: llama.cpp from npm with a small computed model,
 * from the folder LAB (else `lab` in a folder `shared` beside this repository), once, in ${XDG_CACHE_HOME:-~/.cache}/aisix-real.
 * Ends with 1 when a check failed, with 2 when there is no engine to be had.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { officialClients } from './real-clients.ts'
import {
  CALLER_KEY,
  collect,
  isRecord,
  processOf,
  type RunningGateway,
  scratchFolder,
  setUp,
  startGateway,
} from './rig/gateway.ts'

const ENGINE = 'node-llama-cpp@3.22.1'
const MODEL = 'meta-llama/Llama-3.1-8B-Instruct'
const ALIAS = 'llama-3-private'
const ENGINE_START_MS = 60_000
/** As many as the engine's server has by default. */
const ENGINE_SLOTS = 4

type Engine = {
  name: string
  apiBase: string
  model: string
  /** What the server saw, where it can be asked. */
  seen: (() => Promise<Seen[]>) | undefined
  stop(): Promise<unknown>
}
type Seen = { method: string; url: string; authorization: string; model: string; end: string | undefined }

let failures = 0

/** One line of the report. */
function check(claim: string, holds: boolean, seen = ''): void {
  if (!holds) failures += 1
  console.log(`  ${holds ? 'ok    ' : 'FAILED'}  ${claim}${seen === '' ? '' : `: ${seen}`}`)
}

function run(command: readonly string[], cwd: string): void {
  const { success, stderr } = Bun.spawnSync([...command], { cwd, stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' })
  if (!success) throw new Error(`${command.join(' ')} failed:\n${stderr.toString().slice(-2000)}`)
}

/** The engine's folder with everything in it; made at the first call. Ends the process with words when it cannot be. */
function prepareLab(): string {
  const source = resolve(process.env.LAB ?? join(import.meta.dir, '..', '..', 'shared', 'lab'))
  if (!existsSync(join(source, 'nlc-shim.mjs'))) {
    console.error(
      'There is no engine here. Point AISIX_REAL_BASE at an OpenAI-compatible server and AISIX_REAL_MODEL at a model of it:\n' +
        '  AISIX_REAL_BASE=http://10.0.0.5:8000/v1 AISIX_REAL_MODEL=meta-llama/Llama-3.1-8B-Instruct make test-real\n' +
        'or LAB at a folder with nlc-shim.mjs and tiny-gguf.ts.',
    )
    process.exit(2)
  }
  const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'aisix-real')
  mkdirSync(folder, { recursive: true })
  for (const file of readdirSync(source)) copyFileSync(join(source, file), join(folder, file))
  if (!existsSync(join(folder, 'node_modules/node-llama-cpp/package.json'))) {
    console.log(`installing ${ENGINE} in ${folder}, once (about 725 MB) …`)
    Bun.spawnSync(['sh', '-c', `printf '{"private":true,"type":"module"}' > package.json`], { cwd: folder })
    run(['npm', 'install', '--no-audit', '--no-fund', ENGINE], folder)
  }
  if (!existsSync(join(folder, 'tiny.gguf'))) run([process.execPath, 'tiny-gguf.ts', 'tiny.gguf'], folder)
  return folder
}

async function startEngine(folder: string, dialect: string): Promise<Engine> {
  const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = listener
  listener.stop(true)
  const child = Bun.spawn(
    [
      ...['node', 'nlc-shim.mjs', '--model', 'tiny.gguf', '--id', MODEL],
      ...['--port', String(port), '--dialect', dialect, '--slots', String(ENGINE_SLOTS)],
    ],
    { cwd: folder, stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' },
  )
  await collect(child.stdout).waitFor(/nlc-shim .* on /, ENGINE_START_MS, child.exited)
  const origin = `http://127.0.0.1:${port}`
  return {
    name: `llama.cpp, speaking as ${dialect}`,
    apiBase: `${origin}/v1`,
    model: MODEL,
    async seen() {
      const entries: unknown = await (await fetch(`${origin}/log`)).json()
      return Array.isArray(entries) ? entries.filter(isRecord).map(toSeen) : []
    },
    stop: processOf(child).stop,
  }
}

function toSeen({ method, url, headers, body, end }: Record<string, unknown>): Seen {
  return {
    method: String(method),
    url: String(url),
    authorization: String(isRecord(headers) ? headers.authorization : ''),
    model: String(isRecord(body) ? body.model : ''),
    end: typeof end === 'string' ? end : undefined,
  }
}

function post(gateway: RunningGateway, path: string, body: Record<string, unknown>, signal?: AbortSignal): Promise<Response> {
  return fetch(`${gateway.proxyUrl}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal ? { signal } : {}),
  })
}

/** The lab's small model is done before anybody could watch: there it is asked for 20 ms between tokens. */
function aliasAtPace(engine: Engine): string {
  return engine.seen ? `${ALIAS}-slow` : ALIAS
}

const MESSAGES = [{ role: 'user', content: 'Say hello from the private model.' }]

/** A member at any depth, by names and indexes; undefined where there is none. */
function at(value: unknown, ...path: (string | number)[]): unknown {
  let found = value
  for (const step of path) {
    if (Array.isArray(found) && typeof step === 'number') found = found[step]
    else if (isRecord(found) && typeof step === 'string') found = found[step]
    else return undefined
  }
  return found
}

async function wholeAnswer(gateway: RunningGateway, engine: Engine): Promise<void> {
  const response = await post(gateway, '/v1/chat/completions', { model: ALIAS, messages: MESSAGES, max_tokens: 40 })
  const body: unknown = await response.json()
  check('a chat request is answered 200', response.status === 200, JSON.stringify(body).slice(0, 160))
  check('the answer echoes the alias', at(body, 'model') === ALIAS)
  const content = at(body, 'choices', 0, 'message', 'content')
  check('it has text', typeof content === 'string' && content.length > 0)
  const [prompt, completion, total] = ['prompt_tokens', 'completion_tokens', 'total_tokens'].map(name =>
    Number(at(body, 'usage', name)),
  )
  check('it has usage that adds up', Number(prompt) > 0 && Number(prompt) + Number(completion) === total, `${total} tokens`)
  const seen = (await engine.seen?.())?.at(-1)
  if (!seen) return
  check('the engine saw POST /v1/chat/completions', seen.method === 'POST' && seen.url === '/v1/chat/completions')
  check('with the placeholder as bearer', seen.authorization === 'Bearer not-used')
  check('and its own model name', seen.model === engine.model)
}

async function streamedAnswer(gateway: RunningGateway, engine: Engine): Promise<void> {
  const alias = aliasAtPace(engine)
  const askedAt = performance.now()
  const response = await post(gateway, '/v1/chat/completions', {
    model: alias,
    messages: MESSAGES,
    max_tokens: 60,
    stream: true,
    stream_options: { include_usage: true },
  })
  check('a stream is answered 200', response.status === 200, response.headers.get('content-type') ?? '')
  let held = ''
  let pieces = 0
  let firstAt: number | undefined
  let text = ''
  let isAliased = true
  let usage: unknown
  let isDone = false
  const decoder = new TextDecoder()
  process.stdout.write('          ')
  for await (const piece of response.body ?? []) {
    pieces += 1
    held += decoder.decode(piece, { stream: true })
    const events = held.split('\n\n')
    held = events.pop() ?? ''
    for (const event of events.filter(each => each.startsWith('data: '))) {
      const data = event.slice(6)
      if (data === '[DONE]') {
        isDone = true
        continue
      }
      const chunk: unknown = JSON.parse(data)
      isAliased &&= at(chunk, 'model') === alias
      const delta = at(chunk, 'choices', 0, 'delta', 'content')
      usage = at(chunk, 'usage') ?? usage
      if (typeof delta !== 'string' || delta === '') continue
      firstAt ??= performance.now()
      text += delta
      process.stdout.write(delta)
    }
  }
  const ttft = (firstAt ?? Number.NaN) - askedAt
  const completion = Number(at(usage, 'completion_tokens'))
  const took = performance.now() - askedAt
  console.log(`\n          ${completion} tokens in ${took.toFixed(0)} ms, the first after ${ttft.toFixed(0)} ms`)
  check('tokens arrive one by one', text.length > 0 && pieces >= completion / 2, `${pieces} pieces`)
  check('the first long before the last', ttft < took * 0.7)
  check('every chunk has the alias', isAliased)
  check('usage was asked for and comes', completion > 0)
  check('[DONE] ends it', isDone)
}

async function limits(gateway: RunningGateway): Promise<void> {
  const whole = async (more: Record<string, unknown>) => {
    const response = await post(gateway, '/v1/chat/completions', {
      model: ALIAS,
      messages: MESSAGES,
      temperature: 0,
      seed: 1,
      ...more,
    })
    const body: unknown = await response.json()
    return {
      text: String(at(body, 'choices', 0, 'message', 'content')),
      finish: at(body, 'choices', 0, 'finish_reason'),
      tokens: Number(at(body, 'usage', 'completion_tokens')),
    }
  }
  const short = await whole({ max_tokens: 3 })
  check('max_tokens holds', short.tokens <= 3 && short.finish === 'length', `${short.tokens} tokens, ${short.finish}`)
  const long = await whole({ max_tokens: 30 })
  const stop = long.text.trim().slice(2, 6)
  if (stop === '') return check('stop ends the answer', true, 'not tried: the model said nothing to stop at')
  const stopped = await whole({ max_tokens: 30, stop: [stop] })
  check('stop ends the answer', stopped.finish === 'stop' && !stopped.text.includes(stop), `at ${JSON.stringify(stop)}`)
}

async function embeddings(gateway: RunningGateway): Promise<void> {
  const input = ['hello', 'goodbye']
  const response = await post(gateway, '/v1/embeddings', { model: ALIAS, input })
  const body: unknown = await response.json()
  if (response.status !== 200) {
    // Many chat servers have no embeddings; what matters is that the caller is told so.
    const told = String(at(body, 'error', 'message'))
    return check('embeddings are answered, or refused with words', told.length > 3, `${response.status} ${told}`)
  }
  const data = at(body, 'data')
  const vectors = Array.isArray(data) ? data.map((_, index) => at(data, index, 'embedding')) : []
  const sizes = vectors.map(vector => (Array.isArray(vector) ? vector.length : 0))
  check('embeddings come, one an input', sizes.length === 2 && Number(sizes[0]) > 0, `${sizes.join(' and ')} numbers`)
  check('with the alias', at(body, 'model') === ALIAS)
}

async function abort(gateway: RunningGateway, engine: Engine): Promise<void> {
  const { seen } = engine
  // Callers that take every slot of the engine and leave: it is free again only when the engine has noticed.
  const leave = async () => {
    const controller = new AbortController()
    const response = await post(
      gateway,
      '/v1/chat/completions',
      { model: aliasAtPace(engine), messages: MESSAGES, max_tokens: 4000, stream: true },
      controller.signal,
    )
    const reader = response.body?.getReader()
    await reader?.read()
    controller.abort()
    await reader?.closed.catch(() => {})
  }
  await Promise.all(Array.from({ length: ENGINE_SLOTS }, leave))
  const leftAt = performance.now()
  const response = await post(gateway, '/v1/chat/completions', { model: ALIAS, messages: MESSAGES, max_tokens: 2 })
  await response.arrayBuffer()
  const ms = performance.now() - leftAt
  check('after callers left mid-stream the engine is free again', response.status === 200, `answered in ${ms.toFixed(0)} ms`)
  if (!seen) return
  const ends = (await seen()).slice(-ENGINE_SLOTS - 1, -1).map(entry => entry.end)
  check(
    'the engine saw every one of them leave',
    ends.every(end => end === 'client closed'),
    ends.join(', '),
  )
}

async function errors(gateway: RunningGateway): Promise<void> {
  const response = await post(gateway, '/v1/chat/completions', { model: `${ALIAS}-misspelt`, messages: MESSAGES })
  const body: unknown = await response.json()
  const told = `${response.status} ${at(body, 'error', 'message')}`
  check('a model name that the engine does not know is told as the engine tells it', response.status === 404, told)
  const unknown = await post(gateway, '/v1/chat/completions', { model: 'nobody-made-this', messages: MESSAGES })
  const document: unknown = await unknown.json()
  check('an alias that the gateway does not know gets 404', at(document, 'error', 'type') === 'model_not_found')
}

async function follow(engine: Engine): Promise<void> {
  console.log(`\n${engine.name}: ${engine.model} at ${engine.apiBase}`)
  const gateway = await startGateway({ folder: scratchFolder('real') })
  try {
    const providerKeyId = await setUp(gateway, { alias: ALIAS, upstreamModel: engine.model, apiBase: engine.apiBase })
    const addModel = (display_name: string, model_name: string) =>
      gateway.admin('POST', '/models', { display_name, provider: 'vllm', model_name, provider_key_id: providerKeyId })
    await addModel(`${ALIAS}-misspelt`, `${engine.model}-misspelt`)
    // The lab's server takes a delay between tokens as part of the name.
    await addModel(`${ALIAS}-slow`, `${engine.model}@delay=20`)
    const callers = await gateway.admin('GET', '/apikeys')
    check('three writes over the admin API set the gateway up', callers.status === 200)
    await wholeAnswer(gateway, engine)
    await streamedAnswer(gateway, engine)
    await limits(gateway)
    await embeddings(gateway)
    await abort(gateway, engine)
    await errors(gateway)
    const { seen } = engine
    await officialClients({
      url: gateway.proxyUrl,
      key: CALLER_KEY,
      alias: ALIAS,
      slowAlias: aliasAtPace(engine),
      ends: seen && (async () => (await seen()).map(({ end }) => end)),
      check,
    })
  } finally {
    await gateway.stop()
    await engine.stop()
  }
}

const base = process.env.AISIX_REAL_BASE
if (base !== undefined && base !== '') {
  const model = process.env.AISIX_REAL_MODEL ?? MODEL
  await follow({ name: 'server', apiBase: base, model, seen: undefined, stop: () => Promise.resolve() })
} else {
  const folder = prepareLab()
  for (const dialect of ['openai', 'vllm', 'ollama']) await follow(await startEngine(folder, dialect))
}
console.log(failures === 0 ? '\nall checks passed' : `\n${failures} checks FAILED`)
process.exit(failures === 0 ? 0 : 1)

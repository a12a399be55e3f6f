/** The compiled gateway between an official client and a fake upstream, one process for all tests of a file. */
import { afterAll, afterEach, beforeAll, beforeEach } from 'bun:test'
import { type Executable, startExecutable } from '../executable.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, CALLER_KEY, sha256, UPSTREAM_MODEL, UPSTREAM_SECRET, until } from '../gateway.ts'
import { operatorOf } from '../operator.ts'
import { oneTokenThen, saying } from './engine.ts'

type Section = Record<string, unknown>

/** What the gateway recorded of one attempt, as the admin API tells it. */
export type Attempt = Section

export type ClientGateway = {
  upstream: FakeUpstream
  /** Address of the proxy listener, without a slash at the end. */
  url: string
  /** The same with `/v1`, as OpenAI's clients want it. */
  openAiUrl: string
  /** The plaintext key of the caller. */
  key: string
  /** Each creates a resource over the admin API, with the usual members where none are given. returns: its id */
  addProviderKey(members?: Section): Promise<string>
  addModel(members: Section): Promise<string>
  addApiKey(key: string, members?: Section): Promise<string>
  /** Posts under the caller's key; a body that is no string is written as JSON. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>
  /** The first attempt of a request, once it is recorded. */
  attemptOf(requestId: string): Promise<Attempt>
  /** The access line of a request, present or to come. */
  accessLine(requestId: string): Promise<string>
}

type Running = { executable: Executable; upstream: FakeUpstream; operator: ReturnType<typeof operatorOf>; providerKeyId: string }

/**
 * Starts the executable and an upstream before the first test of the file that calls this, and stops both behind the last.
 * There are a provider key, the model ALIAS and a caller key that may use every model. Before each test the upstream says
 * the usual sentence; after each, nothing is in flight any more, so that no request is charged to the next one.
 */
export function gatewayForClients({ config = {} }: { config?: Record<string, Section> } = {}): ClientGateway {
  let started: Running | undefined
  const running = () => {
    if (!started) throw new Error('the gateway starts before the first test, not with the file')
    return started
  }

  const gateway: ClientGateway = {
    get upstream() {
      return running().upstream
    },
    get url() {
      return running().executable.proxyUrl
    },
    get openAiUrl() {
      return `${gateway.url}/v1`
    },
    key: CALLER_KEY,
    addProviderKey: (members = {}) => addProviderKey(running(), members),
    addModel: members => addModel(running(), members),
    addApiKey: (key, members = {}) => addApiKey(running(), key, members),
    post: (path, body, headers = {}) =>
      fetch(gateway.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' ? body : JSON.stringify(body),
      }),
    attemptOf: requestId =>
      eventually(`a record of ${requestId}`, async () => {
        const { attempts } = await read(running(), `requests/${requestId}`)
        return Array.isArray(attempts) ? attempts[0] : undefined
      }),
    async accessLine(requestId) {
      const find = () =>
        running()
          .executable.stderr()
          .split('\n')
          .find(line => line.includes(' access: proxy request completed') && line.includes(requestId))
      await until('an access line', () => find() !== undefined)
      return find() ?? ''
    },
  }

  beforeAll(async () => {
    const upstream = await fakeUpstream()
    const executable = await startExecutable({ config })
    started = { executable, upstream, operator: operatorOf(executable), providerKeyId: '' }
    started.providerKeyId = await addProviderKey(started, {})
    await addModel(started, { display_name: ALIAS })
    await addApiKey(started, CALLER_KEY, { display_name: 'caller one' })
  })
  beforeEach(() => running().upstream.answer(saying('Hello from the private model.')))
  afterEach(() =>
    eventually('nothing in flight', async () => ((await read(running(), 'in_flight')).total === 0 ? true : undefined)),
  )
  afterAll(async () => {
    // Nothing to stop where the start itself failed.
    if (!started) return
    const { executable, upstream } = started
    try {
      await endWell(executable)
    } finally {
      await executable.dispose()
      upstream.stop()
    }
  })
  return gateway
}

/** throws: Error when the gateway has crashed, does not drain, or has written a credential into its log */
async function endWell(executable: Executable): Promise<void> {
  const code = await executable.stop()
  if (code !== 0) throw new Error(`the gateway ended with ${code}; it wrote:\n${executable.stderr()}`)
  for (const secret of [CALLER_KEY, UPSTREAM_SECRET]) {
    if (executable.stderr().includes(secret)) throw new Error('a credential stands in the log of the gateway')
  }
}

function addProviderKey({ operator, upstream }: Running, members: Section): Promise<string> {
  return operator.write('provider_keys', {
    display_name: `provider-key-${crypto.randomUUID()}`,
    provider: 'vllm',
    adapter: 'openai',
    secret: UPSTREAM_SECRET,
    api_base: upstream.url,
    ...members,
  })
}

/** Without retries: what a test asserts is the first answer. */
function addModel({ operator, providerKeyId }: Running, members: Section): Promise<string> {
  return operator.write('models', {
    provider: 'vllm',
    model_name: UPSTREAM_MODEL,
    provider_key_id: providerKeyId,
    retries: 0,
    ...members,
  })
}

function addApiKey({ operator }: Running, key: string, members: Section): Promise<string> {
  return operator.write('apikeys', { key_hash: sha256(key), allowed_models: ['*'], ...members })
}

async function read({ operator }: Running, path: string): Promise<Section> {
  const document: unknown = await (await operator.ask('GET', path)).json()
  return { ...Object(document) }
}

/** Asks until there is an answer; the limit only ends tests that fail anyway. */
async function eventually<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const giveUpAt = Date.now() + 10_000
  for (;;) {
    const found = await ask()
    if (found !== undefined) return found
    if (Date.now() > giveUpAt) throw new Error(`waited 10 s in vain for: ${what}`)
    await Bun.sleep(5)
  }
}

/** All that is sent of a stream whose upstream dies after one token. */
export async function cutStream({ upstream, post }: ClientGateway, path: string, body: Section): Promise<string> {
  const { handler, proceed: cut } = oneTokenThen()
  upstream.answer(handler)
  const answer = await post(path, body)
  cut()
  return answer.text()
}

/** What a client threw; fails when it did not. */
export async function thrown(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: unknown) => error,
  )
}

/** A gateway in front of several upstreams, each under an alias of its own and telling in its answers which one it is. */
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream, type Handler } from '../fake-upstream.ts'
import { answerOf, type GatewayOptions, startGateway, type TestGateway } from '../gateway.ts'

type Section = Record<string, unknown>

export type Fleet = {
  gateway: TestGateway
  /** The upstream behind an alias. */
  at(alias: string): FakeUpstream
  /** Asks for a model, most often a group, and tells who answered. */
  ask(model: string, headers?: Record<string, string>, members?: Section): Promise<Asked>
  /** How many requests have reached each upstream, in the order of the aliases. */
  counts(): number[]
  stop(): Promise<void>
}

export type Asked = Awaited<ReturnType<typeof answerOf>> & {
  /** What `x-aisix-served-by` says. */
  servedBy: string | null
}

/** Answers whole or streamed, as it is asked, with the alias as content. */
export function answersAs(alias: string): Handler {
  return (request, connection) => {
    if (request.path.endsWith('/embeddings')) {
      return connection.json(200, { object: 'list', model: alias, data: [{ object: 'embedding', index: 0, embedding: [1] }] })
    }
    if (request.text.includes('"stream":true')) {
      return connection.sse([chatChunk({ content: alias }), chatChunk({}, { usage: USAGE })])
    }
    return connection.json(200, chatAnswer(alias))
  }
}

const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }

/** Answers with a status and an error of OpenAI's shape. */
export function failsWith(status: number, headers: Record<string, string> = {}): Handler {
  return (_request, connection) => connection.json(status, { error: { message: `failed with ${status}`, type: 'test' } }, headers)
}

/** Breaks the connection before anything was answered. */
export const breaks: Handler = (_request, connection) => connection.reset()

/** in: `models`, members of the models' documents by alias */
export async function startFleet(
  aliases: readonly string[],
  { models = {}, ...options }: GatewayOptions & { models?: Record<string, Section> } = {},
): Promise<Fleet> {
  const upstreams = new Map<string, FakeUpstream>()
  const gateway = await startGateway(options)
  for (const alias of aliases) {
    const upstream = await fakeUpstream()
    upstream.answer(answersAs(alias))
    upstreams.set(alias, upstream)
    const providerKey = await gateway.addProviderKey({ api_base: upstream.url })
    await gateway.addModel({
      display_name: alias,
      model_name: alias,
      provider_key_id: providerKey.id,
      retries: undefined,
      ...models[alias],
    })
  }
  const at = (alias: string) => {
    const upstream = upstreams.get(alias)
    if (!upstream) throw new Error(`no upstream stands behind ${alias}`)
    return upstream
  }
  return {
    gateway,
    at,
    async ask(model, headers = {}, members = {}) {
      const response = await gateway.chat({ model, ...members }, headers)
      return { ...(await answerOf(response)), servedBy: response.headers.get('x-aisix-served-by') }
    },
    counts: () => aliases.map(alias => at(alias).requests.length),
    async stop() {
      await gateway.stop()
      for (const upstream of upstreams.values()) upstream.stop()
    },
  }
}

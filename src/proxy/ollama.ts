/** What Ollama's clients ask besides answers of models: which there are, and what cannot be done here. Source: Ollama, docs/api.md. */
import type { Context, Hono } from 'hono'
import { psDocument, showDocument, tagsDocument, versionDocument } from '../dialects/ollama.ts'
import { GatewayError, invalidRequest } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { type Span, scanMembers } from '../wire/members.ts'
import { listModels } from './models.ts'
import { readBody } from './read.ts'
import { replyJson, replyText } from './reply.ts'
import { aliasOfOllama, findModel, resolve, withTag } from './resolve.ts'

type Env = { Bindings: { exchange: Exchange } }

/** Ollama's version that these answers are modelled on: clients look for features by it. */
const OLLAMA_VERSION = '0.12.0'
/** What every alias may be used for; what its model makes of an image or a tool, nobody here knows. */
const CAPABILITIES = ['completion', 'tools', 'vision', 'thinking', 'embedding']

const REFUSED = ['/api/pull', '/api/push', '/api/create', '/api/copy', '/api/delete', '/api/blobs/*'] as const

/** in: who asks, by the request's credential. throws: as `authenticate` */
export function addOllamaRoutes<E extends Env>(
  app: Hono<E>,
  gateway: Gateway,
  methods: Map<string, string>,
  bodyBytesMax: number,
  callerOf: (c: Context<E>) => { snapshot: Snapshot; caller: CallerKey },
): void {
  const { clock } = gateway
  app.get('/', c => replyText(gateway, c.env.exchange, 'Ollama is running'))
  app.get('/api/version', c => replyJson(gateway, c.env.exchange, versionDocument(OLLAMA_VERSION)))
  app.get('/api/tags', c => {
    const { snapshot, caller } = callerOf(c)
    const createdMs = gateway.lifecycle.startedAtMs
    const names = new Set(listModels(snapshot, caller, clock.now()).data.map(({ id }) => withTag(id)))
    return replyJson(gateway, c.env.exchange, tagsDocument(Array.from(names, alias => ({ alias, createdMs }))))
  })
  app.get('/api/ps', c => {
    callerOf(c)
    return replyJson(gateway, c.env.exchange, psDocument())
  })
  app.post('/api/show', async c => {
    const { snapshot, caller } = callerOf(c)
    const name = nameIn(await readBody(c.req.raw, bodyBytesMax))
    const alias = aliasOfOllama(snapshot, name)
    resolve(findModel(snapshot, alias), caller, alias, c.env.exchange.clientIp)
    return replyJson(gateway, c.env.exchange, showDocument(name, CAPABILITIES))
  })
  for (const path of ['/', '/api/version', '/api/tags', '/api/ps']) methods.set(path, 'GET, HEAD')
  methods.set('/api/show', 'POST')
  for (const path of REFUSED) {
    app.all(path, c => {
      callerOf(c)
      throw new GatewayError(
        'not_implemented',
        'models are managed by the operator of this gateway, on its admin API: it neither pulls, pushes, creates, copies nor deletes any',
      )
    })
  }
}

/** `model`, or `name` as older clients say. throws: invalid_request, as for every body */
function nameIn(bytes: Uint8Array): string {
  let spans: Span[]
  let body: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    spans = scanMembers(text)
    body = JSON.parse(text)
  } catch {
    throw invalidRequest('invalid JSON request body')
  }
  if (spans.filter(({ key }) => key === 'model').length > 1) throw invalidRequest('`model` occurs twice', { param: 'model' })
  const named = Object(body)
  const name: unknown = named.model ?? named.name
  if (typeof name !== 'string' || name === '') throw invalidRequest('`model` field missing', { param: 'model' })
  return name
}

import { z } from 'zod'
import { STATUS_REASONS } from '../model-health.ts'
import { kinds, REGISTRY } from '../resources/index.ts'
import { MASK } from '../resources/provider-key.ts'
import { MODEL_STATUSES } from '../status/models.ts'
import { VERSION } from '../version.ts'
import { HealthResponse } from './health.ts'
import { CALLER_ERROR_DESCRIPTIONS, type Description, ERROR_DESCRIPTIONS, isForAdmins, type Route } from './route.ts'
import { documentSchema, isSchema, type JsonSchema, plainBounds, viewSchema } from './schema.ts'

export type OpenApiResponse = {
  description: string
  headers?: Record<string, { description: string; schema: JsonSchema }>
  content?: Record<string, MediaType>
}
export type MediaType = { schema: JsonSchema; example?: unknown; examples?: Record<string, { value: unknown }> }
export type Parameter = { name: string; in: 'path' | 'query'; required: boolean; description: string; schema: JsonSchema }
export type Operation = {
  operationId: string
  tags: string[]
  summary: string
  description?: string
  security?: Record<string, string[]>[]
  parameters?: Parameter[]
  requestBody?: { required: true; content: Record<string, MediaType> }
  responses: Record<string, OpenApiResponse>
}
export type OpenApiDocument = {
  openapi: '3.1.0'
  info: { title: string; version: string; summary: string; description: string }
  servers: { url: string; description: string }[]
  security: Record<string, string[]>[]
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { securitySchemes: Record<string, Record<string, string>>; schemas: Record<string, JsonSchema> }
}

const TAGS: Record<string, string> = {
  Health: 'Probes, and what the gateway knows about itself.',
  OpenAPI: 'This reference.',
  'Provider Keys': 'Our credential and address for one upstream.',
  Models: 'Aliases that callers use, and what they stand for upstream.',
  'Caller API Keys': 'What callers present at the proxy, and which models and passthrough routes each may use.',
  Budgets: 'What may be spent in a period: in dollars, from the prices of models, or in tokens.',
  'Observability Exporters': 'Where records of requests are delivered.',
  'Passthrough Routes': 'Parts of the proxy listener that are relayed as they are to one server, whatever API it speaks.',
  'Rate Limit Policies':
    'Limits over several keys or models, by team, user, key, model or provider, and when they are suspended.',
  Audit: 'What was changed, by whom and when, and what was refused.',
  Backup: 'Copies of what the gateway keeps.',
  Usage: 'What is used, by whom, how much and when, and what is under way.',
  Catalog: 'Published prices to copy from. None is ever applied by itself.',
  Playground: 'A chat request through the proxy, from the admin listener.',
}

const INTRODUCTION = [
  'Writes take and answer JSON, at most 2 MiB. Unknown members are refused; `null` in an optional member means that it is absent.',
  'A write is in force when its answer is sent, and survives a restart.',
  `Credentials never read back: they show as \`${MASK}\`, and a PUT that sends \`${MASK}\` keeps the stored one.`,
  'References may dangle, so that resources can be written in any order: the answer is 200 with the header `x-aisix-warning`, and `GET /admin/v1/health` lists what dangles.',
].join('\n\n')

/** The OpenAPI document of the admin API. The same routes give the same document, member for member. */
export function openApiDocument(routes: readonly Route[]): OpenApiDocument {
  const paths: OpenApiDocument['paths'] = {}
  for (const route of routes) {
    const operations = paths[route.path] ?? {}
    operations[route.method.toLowerCase()] = operationOf(route)
    paths[route.path] = operations
  }
  const used = new Set(routes.map(route => route.describe.tag))
  return {
    openapi: '3.1.0',
    info: {
      title: 'AISIX Admin API',
      version: VERSION,
      summary: 'Where operators write what the gateway serves.',
      description: INTRODUCTION,
    },
    servers: [{ url: '/', description: 'This gateway.' }],
    security: [{ AdminBearer: [] }, { AdminApiKey: [] }],
    tags: [...used].map(name => ({ name, description: TAGS[name] ?? '' })),
    paths,
    components: {
      securitySchemes: {
        AdminBearer: {
          type: 'http',
          scheme: 'bearer',
          description: 'A key of `admin.admin_keys` or `admin.keys` in `config.yaml`; one with the role `viewer` may read.',
        },
        AdminApiKey: {
          type: 'apiKey',
          in: 'header',
          name: 'x-api-key',
          description: 'The same key, where there is no `Authorization` header.',
        },
        ProxyBearer: { type: 'http', scheme: 'bearer', description: "A caller's API key, as at the proxy." },
      },
      schemas: schemas(),
    },
  }
}

function operationOf(route: Route): Operation {
  const { path, auth, describe } = route
  const operation: Operation = {
    operationId: describe.operationId,
    tags: [describe.tag],
    summary: describe.summary,
    responses: responsesOf(route, describe),
  }
  if (describe.description) operation.description = describe.description
  if (auth !== 'admin') operation.security = auth === 'caller' ? [{ ProxyBearer: [] }] : []
  const parameters: Parameter[] = [...(describe.parameters ?? [])]
  if (path.includes('{id}')) {
    const description = describe.idDescription ?? 'Id of the entry.'
    parameters.unshift({ name: 'id', in: 'path', required: true, description, schema: { type: 'string' } })
  }
  if (parameters.length > 0) operation.parameters = parameters
  if (describe.body) {
    const examples = Object.fromEntries(describe.body.examples.map((value, index) => [`example${index + 1}`, { value }]))
    operation.requestBody = { required: true, content: { 'application/json': { schema: describe.body.schema, examples } } }
  }
  return operation
}

function responsesOf(
  route: Route,
  { success, errors, errorDescriptions, body, errorsInPlainText }: Description,
): Operation['responses'] {
  const { auth } = route
  const media: MediaType = { schema: success.schema ?? { type: 'string' } }
  if (success.example !== undefined) media.example = success.example
  const ok: OpenApiResponse = {
    description: success.description,
    content: { [success.contentType ?? 'application/json']: media },
  }
  if (body && auth === 'admin') {
    ok.headers = {
      'x-aisix-warning': {
        description:
          'What to look at twice, several joined by `; `; percent-encoded beyond printable ASCII. Absent when all is well.',
        schema: { type: 'string' },
      },
    }
  }
  if (auth === 'caller') return { 200: ok, ...proxyErrors() }
  const responses: Operation['responses'] = { 200: ok }
  const statuses = auth === 'admin' ? ([...errors, 401, 500, ...(isForAdmins(route) ? [403 as const] : [])] as const) : errors
  for (const status of [...statuses].sort((a, b) => a - b)) {
    const content: Record<string, MediaType> = errorsInPlainText
      ? { 'text/plain': { schema: { type: 'string' } } }
      : { 'application/json': { schema: reference('AdminError') } }
    responses[status] = { description: errorDescriptions?.[status] ?? ERROR_DESCRIPTIONS[status], content }
  }
  return responses
}

/** Every error of the proxy, and what it relays of the upstream's. */
function proxyErrors(): Operation['responses'] {
  const told = Object.entries(CALLER_ERROR_DESCRIPTIONS).map(([status, description]): [string, OpenApiResponse] => {
    // Without a proxy the admin listener answers by itself.
    const schema = status === '501' ? { anyOf: [reference('ProxyError'), reference('AdminError')] } : reference('ProxyError')
    const response: OpenApiResponse = { description, content: { 'application/json': { schema } } }
    if (status === '429' || status === '503') response.headers = { 'retry-after': RETRY_AFTER }
    return [status, response]
  })
  const others = 'Any other refusal of the upstream, with its own status.'
  return {
    ...Object.fromEntries(told),
    default: { description: others, content: { 'application/json': { schema: reference('ProxyError') } } },
  }
}

const RETRY_AFTER = {
  description: 'Seconds after which to come back. Absent where nobody knows, as with a limit of `concurrency`.',
  schema: { type: 'integer', minimum: 1 },
} as const

const reference = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` })

function schemas(): Record<string, JsonSchema> {
  const all: Record<string, JsonSchema> = {}
  for (const kind of kinds) {
    const { name } = REGISTRY[kind]
    const forms = documentSchema(kind).anyOf?.filter(isSchema) ?? []
    for (const form of forms) if (form.title !== undefined) all[form.title] = form
    const references = forms.map(({ title = '' }) => reference(title))
    all[name] = references.length > 0 ? { ...documentSchema(kind), anyOf: references } : documentSchema(kind)
    all[`${name}Entry`] = {
      type: 'object',
      properties: {
        id: { type: 'string', description: 'Given by the gateway.' },
        value: {
          ...viewSchema(kind),
          description: `The document as it stands: defaults filled in, absent members left out, credentials as \`${MASK}\`.`,
        },
        revision: { type: 'integer', minimum: 1, description: 'Starts at 1 and grows by 1 with each replacement.' },
      },
      required: ['id', 'value', 'revision'],
      additionalProperties: false,
    }
  }
  all.DeleteResponse = {
    type: 'object',
    properties: {
      deleted: { type: 'boolean', const: true, description: 'Always true: what is not there is answered 404.' },
      id: { type: 'string', description: 'Id of the entry that was deleted.' },
    },
    required: ['deleted', 'id'],
    additionalProperties: false,
  }
  all.RotateResponse = {
    type: 'object',
    properties: {
      entry: { ...reference('ApiKeyEntry'), description: 'The entry with its new key hash and revision.' },
      plaintext: { type: 'string', pattern: '^sk-[0-9a-f]{32}$', description: 'The new key. It is not shown again.' },
    },
    required: ['entry', 'plaintext'],
    additionalProperties: false,
  }
  const time = (description: string): JsonSchema => ({
    type: 'object',
    description,
    properties: {
      secs_since_epoch: { type: 'integer', description: 'Whole seconds since 1970, UTC.' },
      nanos_since_epoch: { type: 'integer', minimum: 0, maximum: 999_999_999, description: 'The rest of the second.' },
    },
    required: ['secs_since_epoch', 'nanos_since_epoch'],
    additionalProperties: false,
  })
  all.ModelStatus = {
    type: 'object',
    properties: {
      id: { type: 'string', description: 'Id of the model.' },
      display_name: { type: 'string', description: 'Alias of the model.' },
      kind: { type: 'string', enum: ['direct', 'routing'], description: '`routing`: a model group.' },
      status: {
        type: 'string',
        enum: [...MODEL_STATUSES],
        description:
          '`cooldown`: left out of groups after a failure. `unhealthy`: its background check fails. Of a model group always `not_applicable`.',
      },
      cooldown_until: time('During a cooldown: its end.'),
      last_checked_at: time('After a background check: when it ended.'),
      last_check_status: {
        type: 'integer',
        description: 'After a background check with an answer: its HTTP status. 408 where none came in time.',
      },
      status_reason: { type: 'string', enum: [...STATUS_REASONS], description: 'Where it is known why the model is not well.' },
    },
    required: ['id', 'display_name', 'kind', 'status'],
    additionalProperties: false,
  }
  all.AdminError = {
    type: 'object',
    properties: { error_msg: { type: 'string', description: 'What was expected and what to do; never a submitted value.' } },
    required: ['error_msg'],
    additionalProperties: false,
  }
  all.ProxyError = {
    type: 'object',
    properties: {
      error: {
        type: 'object',
        description: 'What went wrong, in the envelope of the OpenAI API.',
        properties: {
          message: { type: 'string', description: 'What was asked and what to change.' },
          type: { type: 'string', description: 'The class of the error, such as `rate_limit_exceeded`.' },
          code: { type: 'string', description: 'A narrower class, where there is one, such as `api_key_expired`.' },
          param: { type: 'string', description: 'The member that is meant.' },
          policy: {
            type: 'object',
            description: 'The rate-limit policy that refused the request, where one did.',
            properties: {
              id: { type: 'string', description: 'Id of the policy.' },
              name: { type: 'string', description: 'Name of the policy.' },
            },
            required: ['id', 'name'],
          },
        },
        required: ['message', 'type'],
      },
    },
    required: ['error'],
  }
  const { $schema, ...health } = z.toJSONSchema(HealthResponse, { override: ({ jsonSchema }) => plainBounds(jsonSchema) })
  all.HealthResponse = health.$defs?.HealthResponse ?? health
  return all
}

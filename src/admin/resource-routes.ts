/** The routes of stored resources: five for each kind under each of its paths, and the rotation of caller keys. */
import { createHash, randomBytes } from 'node:crypto'
import type { Log } from '../lib/log.ts'
import { type Kind, kinds, REGISTRY, type Resource } from '../resources/index.ts'
import { type Entry, NameTaken, type Store, StoreUnavailable, WritesRefused } from '../store/store.ts'
import { readDocument } from './body.ts'
import { AdminError, json } from './error.ts'
import { jsonList } from './json-list.ts'
import { mask, unmask } from './masking.ts'
import type { Call, Description, Route } from './route.ts'
import { examplesOf, type JsonSchema } from './schema.ts'
import { validate } from './validate.ts'
import { warningHeader, warningsOfRemoval, warningsOfWrite } from './warnings.ts'

export type ResourceOptions = { store: Store; log: Log; bodyTimeoutMs: number }

const notFound = () => new AdminError(404, 'resource not found')

/** source: control-admin-api §2.4, §4.3 */
export function resourceRoutes(options: ResourceOptions): Route[] {
  return [...kinds.flatMap(kind => routesOfKind(kind, options)), ...rotateRoutes(options)]
}

function routesOfKind<K extends Kind>(kind: K, { store, log, bodyTimeoutMs }: ResourceOptions): Route[] {
  const { name, paths, tag } = REGISTRY[kind]
  const schema: JsonSchema = { $ref: `#/components/schemas/${name}` }
  const entrySchema: JsonSchema = { $ref: `#/components/schemas/${name}Entry` }
  const examples = examplesOf(kind)
  const [example] = examples
  const entryExample = example === undefined ? undefined : exampleEntry(kind, example)
  const body = { schema, examples }
  const what = article(name)

  const list = () => jsonList(store.list(kind), entry => shown(kind, entry))

  const read = ({ id }: Call) => {
    const entry = store.get(kind, id)
    if (!entry) throw notFound()
    return json(200, shown(kind, entry))
  }

  const create = (call: Call) =>
    recorded({ store, log }, call, kind, 'created', async () => {
      const value = unmask(kind, validate(kind, await readDocument(call.request, bodyTimeoutMs)), undefined)
      const entry = await store.create(kind, value, call.actor)
      return { id: entry.id, response: written(kind, entry, undefined, store) }
    })

  const replace = (call: Call) =>
    recorded({ store, log }, call, kind, 'replaced', async () => {
      const document = await readDocument(call.request, bodyTimeoutMs)
      if (!store.holds(kind, call.id)) throw notFound()
      const value = validate(kind, document)
      let before: Resource[K] | undefined
      const entry = await store.replace(
        kind,
        call.id,
        now => {
          before = now
          return unmask(kind, value, now)
        },
        call.actor,
        // A row that someone broke by hand is repaired by writing it anew, credentials included.
        () => unmask(kind, value, undefined),
      )
      // Another operator may have deleted it since.
      if (!entry) throw notFound()
      return { id: entry.id, response: written(kind, entry, before, store) }
    })

  const remove = (call: Call) =>
    recorded({ store, log }, call, kind, 'deleted', async () => {
      const entry = store.get(kind, call.id)
      if (!(await store.remove(kind, call.id, call.actor))) throw notFound()
      const warning = warningHeader(entry ? warningsOfRemoval(kind, entry, store.snapshot) : [])
      return { id: call.id, response: json(200, { deleted: true, id: call.id }, warning ? { 'x-aisix-warning': warning } : {}) }
    })

  return paths.flatMap((segment, index): Route[] => {
    // A second path has the same handlers and needs operation ids of its own.
    const suffix = index === 0 ? '' : 'Alias'
    const note = index === 0 ? undefined : `Same as \`/admin/v1/${paths[0]}\`.`
    const collection = `/admin/v1/${segment}`
    const single = `${collection}/{id}`
    const entryOf = (description: string): Description['success'] => ({ description, schema: entrySchema, example: entryExample })
    const common = { tag, description: note }
    return [
      {
        method: 'GET',
        path: collection,
        auth: 'admin',
        handle: list,
        describe: {
          ...common,
          operationId: `list${plural(name)}${suffix}`,
          summary: `List all ${tag.toLowerCase()}`,
          success: {
            description: 'All entries in the order of their creation.',
            schema: { type: 'array', items: entrySchema },
            example: entryExample === undefined ? undefined : [entryExample],
          },
          errors: [],
        },
      },
      {
        method: 'POST',
        path: collection,
        auth: 'admin',
        change: { kind, action: 'create' },
        handle: create,
        describe: {
          ...common,
          operationId: `create${name}${suffix}`,
          summary: `Create ${what}`,
          body,
          success: entryOf('The new entry, as normalised. In force when this answer is sent.'),
          errors: [400, 408, 409, 413, 415],
        },
      },
      {
        method: 'GET',
        path: single,
        auth: 'admin',
        handle: read,
        describe: {
          ...common,
          operationId: `get${name}${suffix}`,
          summary: `Read ${what}`,
          success: entryOf('The entry.'),
          errors: [404],
        },
      },
      {
        method: 'PUT',
        path: single,
        auth: 'admin',
        change: { kind, action: 'replace' },
        handle: replace,
        describe: {
          ...common,
          operationId: `replace${name}${suffix}`,
          summary: `Replace ${what}`,
          description: [
            note,
            'Replaces the whole document: what is left out falls back to its default or disappears. A credential written as `***` keeps the stored one.',
          ]
            .filter(Boolean)
            .join(' '),
          body,
          success: entryOf('The entry with its new revision. In force when this answer is sent.'),
          errors: [400, 404, 408, 409, 413, 415],
        },
      },
      {
        method: 'DELETE',
        path: single,
        auth: 'admin',
        change: { kind, action: 'delete' },
        handle: remove,
        describe: {
          ...common,
          operationId: `delete${name}${suffix}`,
          summary: `Delete ${what}`,
          success: {
            description: 'It is gone.',
            schema: { $ref: '#/components/schemas/DeleteResponse' },
            example: { deleted: true, id: EXAMPLE_ID },
          },
          errors: [404, 409],
        },
      },
    ]
  })
}

/** `POST …/{id}/rotate`: a new plaintext for a caller key, shown this once; everything else about the key stays. */
function rotateRoutes({ store, log }: ResourceOptions): Route[] {
  const rotate = (call: Call) =>
    recorded({ store, log }, call, 'api_keys', 'rotated', async () => {
      const plaintext = `sk-${randomBytes(16).toString('hex')}`
      const key_hash = createHash('sha256').update(plaintext).digest('hex')
      const entry = await store.replace('api_keys', call.id, now => ({ ...now, key_hash }), call.actor, undefined, 'rotate')
      if (!entry) throw notFound()
      return { id: entry.id, response: json(200, { entry: shown('api_keys', entry), plaintext }) }
    })
  const { name, paths, tag } = REGISTRY.api_keys
  const [example] = examplesOf('api_keys')
  return paths.map((segment, index) => ({
    method: 'POST',
    path: `/admin/v1/${segment}/{id}/rotate`,
    auth: 'admin',
    change: { kind: 'api_keys', action: 'rotate' },
    handle: rotate,
    describe: {
      operationId: `rotate${name}${index === 0 ? '' : 'Alias'}`,
      tag,
      summary: 'Replace the plaintext of a caller API key',
      description:
        'Makes a new plaintext key. The old one is refused from now on; id, limits and allowed models stay. A body is not needed and not read.',
      success: {
        description: 'The entry, and the plaintext, which is shown only here.',
        schema: { $ref: '#/components/schemas/RotateResponse' },
        example: { entry: exampleEntry('api_keys', example, 2), plaintext: 'sk-00000000000000000000000000000000' },
      },
      errors: [404, 409],
    },
  }))
}

/** Runs a write and logs it: who, what and how it ended, and no value. Failures of the store get their status here. */
async function recorded(
  { store, log }: Pick<ResourceOptions, 'store' | 'log'>,
  { actor, id, request }: Call,
  kind: Kind,
  outcome: string,
  write: () => Promise<{ id: string; response: Response }>,
): Promise<Response> {
  const { adminKey, address, requestId } = actor
  const fields = { actor: adminKey, address, method: request.method, kind, request_id: requestId }
  try {
    if (store.writesRefused !== undefined) throw new WritesRefused(store.writesRefused)
    const done = await write()
    log.info('admin write', { ...fields, id: done.id, outcome })
    return done.response
  } catch (error) {
    const refusal = refusalOf(error)
    log.info('admin write', {
      ...fields,
      id: id === '' ? undefined : id.slice(0, 256),
      outcome: `refused with ${refusal?.status ?? 500}`,
    })
    throw refusal ?? error
  }
}

function refusalOf(error: unknown): AdminError | undefined {
  if (error instanceof AdminError) return error
  if (error instanceof NameTaken || error instanceof WritesRefused) return new AdminError(409, error.message)
  if (error instanceof StoreUnavailable) return new AdminError(500, `store error: ${error.message}`)
  return undefined
}

function written<K extends Kind>(kind: K, entry: Entry<K>, before: Resource[K] | undefined, store: Store): Response {
  const warning = warningHeader(warningsOfWrite(kind, entry, before, store.snapshot))
  return json(200, shown(kind, entry), warning ? { 'x-aisix-warning': warning } : {})
}

function shown<K extends Kind>(kind: K, { id, value, revision }: Entry<K>): Entry<K> {
  return { id, value: mask(kind, value), revision }
}

const EXAMPLE_ID = '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11'

/** The entry that writing an example would answer. */
function exampleEntry(kind: Kind, example: unknown, revision = 1): Entry {
  return { id: EXAMPLE_ID, value: mask(kind, REGISTRY[kind].schema.parse(example)), revision }
}

const plural = (name: string): string => name.replace(/(?<=[^aeiou])y$/, 'ie') + 's'

function article(name: string): string {
  const words = name
    .replace(/(?<=[a-z])(?=[A-Z])/g, ' ')
    .toLowerCase()
    .replace(/^api\b/, 'API')
  return `${/^[aeiou]/i.test(words) ? 'an' : 'a'} ${words}`
}

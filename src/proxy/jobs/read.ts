import { adapterOf } from '../../adapters/index.ts'
import { invalidRequest } from '../../errors.ts'
import type { Exchange } from '../../exchange.ts'
import { queryOf } from '../../lib/query-of.ts'
import { type CallerKey, isDirectEntry, type Snapshot } from '../../store/snapshot.ts'
import { isCredentialName } from '../../wire/headers.ts'
import { findMember, type Member, readMembers, removeMember, writeMembers } from '../../wire/members.ts'
import type { Endpoint } from '../endpoints/endpoint.ts'
import type { Question } from '../question.ts'
import { assertUnencoded, bodyText, invalidBody, isJson, readBody } from '../read.ts'
import { compileAccess } from '../resolve.ts'
import { readUpload, type UploadLimits } from '../upload.ts'
import { decodeId, type JobId } from './ids.ts'
import type { Job } from './job.ts'

/** Header that names the model of requests that have none. */
const MODEL_HEADER = 'x-aisix-model'

type Limits = UploadLimits & { bodyBytesMax: number }

/**
 * A request for a file, a batch or a fine-tuning job → typed question. Its model, which says whose they are, is the one in an id
 * of ours, else the one that is named, else the first that the caller may use and that can have such things.
 * throws: invalid_request, and as `readBody` and `readUpload`
 */
export async function readJob(
  job: Job,
  endpoint: Endpoint,
  request: Request,
  exchange: Exchange,
  snapshot: Snapshot,
  caller: CallerKey,
  limits: Limits,
): Promise<Question> {
  const searchParams = new URLSearchParams(queryOf(request.url))
  const ids: JobId[] = []
  let suffix = ''
  if (job.hasId) {
    const id = decodeId(pathId(exchange.path, endpoint.path))
    ids.push(id)
    suffix = `/${pathSegment(id.raw)}`
  }
  if (job.action !== undefined) suffix += `/${job.action}`
  const upload = endpoint.form && (await readUpload(endpoint.form, request, exchange, limits)).upload
  const body = job.body && (await readMembersOf(job.body, request, limits.bodyBytesMax, ids))
  const named = [
    upload && fieldOf(upload.parts, 'model'),
    job.body?.isModelForwarded ? undefined : body && textOf(body, 'model'),
    searchParams.get('model'),
    request.headers.get(MODEL_HEADER),
  ]
  if (searchParams.getAll('model').length > 1) throw invalidRequest('`model` occurs twice', { param: 'model' })
  for (const name of [...searchParams.keys()]) if (name === 'model' || isCredentialName(name)) searchParams.delete(name)
  const after = searchParams.get('after')
  if (after !== null) {
    const id = decodeId(after, 'after')
    ids.push(id)
    searchParams.set('after', id.raw)
  }
  if (body && !job.body?.isModelForwarded) removeMember(body, 'model')
  const model =
    ids.find(({ alias }) => alias !== undefined)?.alias ??
    named.find(each => each !== undefined && each !== null && each !== '') ??
    firstOf(snapshot, caller, exchange)
  if (model === undefined) {
    throw invalidRequest(
      'no model says which server is meant: name one in the query (`?model=`) or in the header `x-aisix-model`',
    )
  }
  const others = ids.filter(({ alias }) => alias !== undefined && alias !== model)
  if (others.length > 0) throw invalidRequest('the ids of this request belong to different models')
  const query = searchParams.size === 0 ? '' : `?${searchParams}`
  const text = body ? writeMembers(body) : ''
  return {
    text,
    spans: [],
    model,
    isStream: false,
    includeUsage: false,
    hasStreamOptions: true,
    bytes: upload?.spool.bytes ?? Buffer.byteLength(text),
    callerBody: undefined,
    translate: undefined,
    upload,
    call: { method: job.method, suffix: suffix + query, hasBody: body !== undefined || upload !== undefined },
  }
}

/** The id in a path, unescaped. throws: invalid_request */
function pathId(path: string, template: string): string {
  const collection = template.slice(0, template.indexOf('/:id'))
  const [segment = ''] = path.slice(collection.length + 1).split('/')
  try {
    return decodeURIComponent(segment)
  } catch {
    throw invalidRequest('invalid path parameter')
  }
}

/** A raw id as a segment of the server's path: it stays one, whatever it says. throws: invalid_request */
function pathSegment(raw: string): string {
  // `fetch` takes dots for steps in the path, escaped or not, and some proxies take escaped slashes for slashes. No id has any.
  if (raw === '' || raw === '.' || raw === '..' || /[/\\\p{Cc}]/u.test(raw)) throw invalidRequest('invalid path parameter')
  return encodeURIComponent(raw)
}

async function readMembersOf(
  { required, ids: names }: NonNullable<Job['body']>,
  request: Request,
  cap: number,
  ids: JobId[],
): Promise<Member[]> {
  assertUnencoded(request.headers)
  if (!isJson(request.headers.get('content-type'))) throw invalidBody('content-type must be application/json')
  const text = bodyText(await readBody(request, cap))
  let members: Member[]
  try {
    JSON.parse(text)
    members = readMembers(text)
  } catch {
    throw invalidBody()
  }
  for (const name of [...names, 'model']) {
    if (members.filter(({ key }) => key === name).length > 1) throw invalidRequest(`\`${name}\` occurs twice`, { param: name })
  }
  if (textOf(members, required) === undefined) throw invalidRequest(`\`${required}\` field missing`, { param: required })
  for (const name of names) {
    const member = findMember(members, name)
    const value = textOf(members, name)
    if (!member || value === undefined) continue
    const id = decodeId(value, name)
    ids.push(id)
    if (id.alias !== undefined) member.rawValue = JSON.stringify(id.raw)
  }
  return members
}

function textOf(members: readonly Member[], name: string): string | undefined {
  const raw = findMember(members, name)?.rawValue
  if (raw === undefined || raw === 'null') return undefined
  const value: unknown = JSON.parse(raw)
  if (typeof value !== 'string' || value === '') throw invalidRequest(`\`${name}\` must be a text`, { param: name })
  return value
}

function fieldOf(parts: readonly { name: string; value: Uint8Array | undefined }[], name: string): string | undefined {
  const value = parts.find(part => part.name === name)?.value
  return value && Buffer.from(value).toString('utf8')
}

/** The first direct model that this caller may use and whose server may keep files. */
function firstOf({ models, providerKeys }: Snapshot, caller: CallerKey, { clientIp }: Exchange): string | undefined {
  for (const [alias, entry] of models) {
    if (!isDirectEntry(entry) || !caller.allows(alias)) continue
    const providerKey = providerKeys.get(entry.value.provider_key_id)?.value
    if (!providerKey || adapterOf(providerKey.provider, providerKey.adapter)?.paths.files === undefined) continue
    const allows = compileAccess(entry.value.allowed_cidrs)
    if (!allows || allows(clientIp())) return alias
  }
  return undefined
}

import { randomUUID } from 'node:crypto'
import { invalidRequest } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import { boundaryOf, type FormPart, formEnd, MultipartError, MultipartScanner, partHead } from '../wire/multipart.ts'
import { allowedTemperature, type BodyOverrides } from './encode.ts'
import type { Form } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'
import { assertUnencoded, BODY_STALL_MS, eachPiece } from './read.ts'
import { Spool, type Stretch } from './spool.ts'

/** Bytes that a form may have, and the folder for what is too long for the memory. */
export type UploadLimits = { uploadBytesMax: number; uploadFolder: string }

/** A form on its way: its bytes, and where the parts stand in them. */
export type Upload = {
  spool: Spool
  parts: readonly FormPart[]
}

const decoder = new TextDecoder('utf-8', { fatal: true })

/**
 * A form → typed question. It is read to its end before anybody is asked: where `model` stands behind the file nobody knows
 * sooner whom to ask, and another try needs the whole of it.
 * throws: invalid_request, unsupported_encoding, upload_unavailable, and as `readBody`
 */
export async function readUpload(
  form: Form,
  request: Request,
  exchange: Exchange,
  { uploadBytesMax, uploadFolder }: UploadLimits,
): Promise<Question> {
  assertUnencoded(request.headers)
  const boundary = boundaryOf(request.headers.get('content-type'))
  if (boundary === undefined) throw invalidRequest(INVALID_FORM)
  const spool = new Spool(uploadFolder)
  exchange.spool = spool
  const scanner = new MultipartScanner(boundary)
  try {
    await eachPiece(request, uploadBytesMax, BODY_STALL_MS, piece => {
      scanner.push(piece)
      return spool.append(piece)
    })
    scanner.finish()
  } catch (error) {
    throw error instanceof MultipartError ? invalidRequest(`${INVALID_FORM}: ${error.message}`) : error
  }
  const { parts } = scanner
  const model = textField(parts, 'model')
  if ((model === undefined && form.model === 'alias') || model === '')
    throw invalidRequest('`model` field missing', { param: 'model' })
  const isStream = /^(?:true|t|1|on|yes|y)$/i.test(textField(parts, 'stream')?.trim() ?? '')
  if (isStream && form.stream === 'refused') throw invalidRequest('`stream` is not supported here', { param: 'stream' })
  textField(parts, 'prompt')
  if (!parts.some(({ name, filename }) => filename !== undefined && form.files.includes(name))) {
    const [name = 'file'] = form.files
    throw invalidRequest(`\`${name}\` field missing`, { param: name })
  }
  return {
    text: '',
    spans: [],
    model: model ?? '',
    isStream,
    includeUsage: true,
    hasStreamOptions: true,
    bytes: spool.bytes,
    callerBody: undefined,
    translate: undefined,
    upload: { spool, parts },
  }
}

const INVALID_FORM = 'invalid multipart form data'

/** A field's text. throws: invalid_request where it occurs twice, is a file, or is no text */
function textField(parts: readonly FormPart[], name: string): string | undefined {
  const [field, other] = parts.filter(part => part.name === name)
  if (!field) return undefined
  if (other) throw invalidRequest(`\`${name}\` occurs twice`, { param: name })
  if (!field.value) throw invalidRequest(`\`${name}\` must be a field of text`, { param: name })
  try {
    return decoder.decode(field.value)
  } catch {
    throw invalidRequest(`\`${name}\` field is not valid UTF-8`, { param: name })
  }
}

/** A form as it is sent to an upstream. */
export type OutboundForm = { contentType: string; bytes: number; stream(): ReadableStream<Uint8Array> }

/** A part of it: what stands in the caller's form, or a text in its place. */
type Part = Pick<FormPart, 'name' | 'filename' | 'contentType'> & { value: FormPart | string }

/**
 * The form with the upstream's name of the model, and with what the operator wants changed. Values go on byte for byte; what
 * stands around them is ours, since not every server would read the caller's as we do.
 * in: undefined takes the model out
 */
export function encodeUpload(upload: Upload, model: string | undefined, overrides: BodyOverrides | undefined): OutboundForm {
  let parts: Part[] = upload.parts.map(part => ({ ...part, value: part }))
  if (overrides) parts = overridden(parts, overrides)
  const boundary = `aisix-${randomUUID()}`
  const encoder = new TextEncoder()
  const stretches: Stretch[] = []
  let bytes = 0
  const add = (text: string) => {
    const encoded = encoder.encode(text)
    stretches.push(encoded)
    bytes += encoded.byteLength
  }
  for (const part of parts) {
    const isModel = part.name === 'model'
    if (isModel && model === undefined) continue
    const value = isModel ? (model ?? '') : part.value
    add(partHead(boundary, part, bytes === 0))
    if (typeof value === 'string') add(value)
    else {
      stretches.push({ from: value.valueStart, to: value.valueEnd })
      bytes += value.valueEnd - value.valueStart
    }
  }
  add(formEnd(boundary))
  return {
    contentType: `multipart/form-data; boundary=${boundary}`,
    bytes,
    stream: () => upload.spool.stream(stretches),
  }
}

/** What `overrides` say of members of a JSON body, for the fields of a form. Files stay as they are. */
function overridden(parts: readonly Part[], overrides: BodyOverrides): Part[] {
  let changed = [...parts]
  const isField = ({ filename, name }: Part) => filename === undefined && name !== 'model'
  for (const [from, to] of overrides.renames) {
    if (from === to || !changed.some(part => isField(part) && part.name === from)) continue
    changed = changed.filter(part => !isField(part) || part.name !== to)
    changed = changed.map(part => (isField(part) && part.name === from ? { ...part, name: to } : part))
  }
  changed = changed.map(part =>
    isField(part) && part.name === 'temperature' ? { ...part, value: clamped(part.value, overrides) } : part,
  )
  for (const [name, rawValue] of overrides.defaults) {
    if (name === 'model' || changed.some(part => isField(part) && part.name === name)) continue
    const given: unknown = JSON.parse(rawValue)
    changed.push({ name, filename: undefined, contentType: undefined, value: typeof given === 'string' ? given : rawValue })
  }
  return changed
}

function clamped(value: Part['value'], overrides: BodyOverrides): Part['value'] {
  if (typeof value === 'string' || !value.value) return value
  const text = Buffer.from(value.value).toString('latin1').trim()
  const given = Number(text)
  if (text === '' || Number.isNaN(given)) return value
  const allowed = allowedTemperature(given, overrides)
  return allowed === given ? value : String(allowed)
}

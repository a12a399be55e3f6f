import { invalidRequest } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import { boundaryOf, type FormPart, MultipartError, MultipartScanner } from '../wire/multipart.ts'
import { allowedTemperature, type BodyOverrides } from './encode.ts'
import type { Form } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'
import { assertUnencoded, BODY_STALL_MS, eachPiece } from './read.ts'
import { Spool, type Stretch } from './spool.ts'

/** Bytes that a form may have, and the folder for what is too long for the memory. */
export type UploadLimits = { uploadBytesMax: number; uploadFolder: string }

/** A form on its way: its bytes, and where the parts stand in them. */
export type Upload = {
  contentType: string
  boundary: string
  spool: Spool
  parts: readonly FormPart[]
  /** Where the delimiter that ends the form begins. */
  end: number
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
  const contentType = request.headers.get('content-type') ?? ''
  const boundary = boundaryOf(contentType)
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
  const { parts, end = 0 } = scanner
  const model = textField(parts, 'model')
  if ((model === undefined && form.model === 'alias') || model === '')
    throw invalidRequest('`model` field missing', { param: 'model' })
  const isStream = /^(?:true|1|on|yes)$/i.test(textField(parts, 'stream')?.trim() ?? '')
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
    upload: { contentType, boundary, spool, parts, end },
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

/** A change of the form: what stands from `from` to `to` becomes `text`. */
type Edit = { from: number; to: number; text: string }

/** A form as it is sent to an upstream. */
export type OutboundForm = { bytes: number; stream(): ReadableStream<Uint8Array> }

/**
 * The form with the upstream's name of the model, and with what the operator wants changed; all else byte for byte.
 * in: undefined takes the field out
 */
export function encodeUpload(upload: Upload, model: string | undefined, overrides: BodyOverrides | undefined): OutboundForm {
  const edits = overrides ? overridden(upload, overrides) : []
  for (const part of upload.parts)
    if (part.name === 'model') edits.push(model === undefined ? without(part) : replaced(part, model))
  edits.sort((a, b) => a.from - b.from)
  const stretches: Stretch[] = []
  let at = 0
  let bytes = 0
  for (const { from, to, text } of edits) {
    const inserted = new TextEncoder().encode(text)
    stretches.push({ from: at, to: from }, inserted)
    bytes += from - at + inserted.byteLength
    at = to
  }
  stretches.push({ from: at, to: upload.spool.bytes })
  bytes += upload.spool.bytes - at
  return { bytes, stream: () => upload.spool.stream(stretches) }
}

function replaced({ valueStart, valueEnd }: FormPart, text: string): Edit {
  return { from: valueStart, to: valueEnd, text }
}

function without({ start, end }: FormPart): Edit {
  // The form begins with its delimiter, without a line break before it.
  return { from: start, to: start === 0 ? end + 2 : end, text: '' }
}

/** What `overrides` say of members of a JSON body, for the fields of a form. Files stay as they are. */
function overridden({ parts, boundary, end }: Upload, overrides: BodyOverrides): Edit[] {
  const fields = parts.filter(({ filename, name }) => filename === undefined && name !== 'model')
  const edits: Edit[] = []
  const names = new Set(fields.map(({ name }) => name))
  const gone = new Set<FormPart>()
  for (const [from, to] of overrides.renames) {
    if (from === to || !names.has(from)) continue
    for (const part of fields) if (part.name === to) gone.add(part)
    names.add(to)
    names.delete(from)
    for (const part of fields) {
      if (part.name === from) edits.push({ from: part.start, to: part.valueStart, text: headOf(boundary, to, part.start === 0) })
    }
  }
  for (const part of gone) edits.push(without(part))
  for (const part of fields) {
    if (part.name !== 'temperature' || !part.value || gone.has(part)) continue
    const text = Buffer.from(part.value).toString('latin1').trim()
    const given = Number(text)
    if (text === '' || Number.isNaN(given)) continue
    const allowed = allowedTemperature(given, overrides)
    if (allowed !== given) edits.push(replaced(part, String(allowed)))
  }
  for (const [name, rawValue] of overrides.defaults) {
    if (names.has(name) || name === 'model') continue
    const value: unknown = JSON.parse(rawValue)
    edits.push({ from: end, to: end, text: headOf(boundary, name, false) + (typeof value === 'string' ? value : rawValue) })
  }
  return edits
}

/** Delimiter and headers of a field. Source: WHATWG HTML, "multipart/form-data encoding", for what is escaped in names. */
function headOf(boundary: string, name: string, isFirst: boolean): string {
  const escaped = name.replaceAll('\n', '%0A').replaceAll('\r', '%0D').replaceAll('"', '%22')
  return `${isFirst ? '' : '\r\n'}--${boundary}\r\nContent-Disposition: form-data; name="${escaped}"\r\n\r\n`
}

/** Usage records as objects of newline-delimited JSON, one a batch. source: control-observability §5 and §5.2 */
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FolderExporter, S3Exporter } from '../resources/observability-exporter.ts'
import { type RequestReport, usageJson } from '../telemetry/usage-record.ts'
import type { Destination, Outcome, Part } from './destination.ts'
import { openFolder } from './folder.ts'
import { openS3 } from './s3.ts'
import { sha256 } from './sigv4.ts'

/** `key`: parts of a path with slashes between, none of them empty, `.` or `..`. */
export type StoredObject = { key: string; body: Uint8Array<ArrayBuffer>; type: string }

/** Where objects are put. Putting one again under its key leaves one object. Never rejects. */
export interface Target {
  /** For the log. */
  readonly address: string
  put(object: StoredObject, signal: AbortSignal): Promise<Outcome>
}

type Needs = Parameters<typeof openS3>[1]

const SCHEMA_VERSION = '1.0'

/** In a thread of the runtime's pool. */
const compress = promisify(gzip)

export function openObjectStore(exporter: S3Exporter | FolderExporter, needs: Needs): Destination {
  const target = exporter.provider === 's3' ? openS3(exporter, needs) : openFolder(exporter)
  const isCompressed = exporter.compression === 'gzip'
  const prefix = (exporter.prefix ?? '').replace(/^\/+|\/+$/g, '')
  const ending = isCompressed ? '.ndjson.gz' : '.ndjson'
  const type = isCompressed ? 'application/gzip' : 'application/x-ndjson'
  return {
    sampleRate: 1,
    contentBytesMax: 0,
    address: target.address,
    encode,
    async pack(parts) {
      const lines = Buffer.from(joined(parts))
      const body = new Uint8Array(isCompressed ? await compress(lines) : lines)
      const time = new Date(parts[0]?.atMs ?? 0).toISOString()
      const place = `dt=${time.slice(0, 10)}/hh=${time.slice(11, 13)}/${sha256(body).slice(0, 32)}${ending}`
      const object = { key: prefix === '' ? place : `${prefix}/${place}`, body, type }
      return signal => target.put(object, signal)
    },
  }
}

function encode({ records }: RequestReport): string {
  let lines = ''
  for (const record of records) {
    const document = usageJson(record)
    document.schema_version = SCHEMA_VERSION
    lines += `${JSON.stringify(document)}\n`
  }
  return lines
}

function joined(parts: readonly Part[]): string {
  let text = ''
  for (const part of parts) text += part.text
  return text
}

import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { isHeaderName, isHeaderValue } from '../lib/headers.ts'
import { defaulted, optional, text } from './fields.ts'
import type { Form } from './form.ts'

/** Kinds and providers that the contract has and this version does not. source: control-resources §7 */
const CLOUD_KINDS: readonly unknown[] = ['aliyun_sls', 'datadog']
const CLOUD_PROVIDERS: readonly unknown[] = ['gcs', 'azure_blob']

/** What is said of a value of an enumeration that is of a later version; any other gets the list of what there is. */
const laterVersion = (known: readonly unknown[], instead: string) => (issue: { input?: unknown }) =>
  known.includes(issue.input) ? `\`${issue.input}\` is not supported by this version: use ${instead}` : undefined

/** A string with a rule of its own: `problem` returns what is wrong, without the value, or undefined. */
function checked(problem: (value: string) => string | undefined) {
  return z.string().superRefine((value, context) => {
    const message = problem(value)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })
}

const URL_CHARACTERS_MAX = 2048

/**
 * An address of HTTP, of any host. User info and fragments would be lost or logged; what the URL parser would repair in
 * silence was not meant.
 */
function addressProblem(value: string, example: string): string | undefined {
  if (!/^https?:\/\//i.test(value)) return `must start with http:// or https://, as in ${example}`
  if (value.length > URL_CHARACTERS_MAX) return `must be at most ${URL_CHARACTERS_MAX} characters long`
  if (/[\s\\\u0000-\u001f\u007f]/.test(value)) return 'must not hold blanks, control characters or backslashes'
  if (/^https?:\/\/(\/|$)/i.test(value)) return `must name a host behind http:// or https://, as in ${example}`
  const url = URL.parse(value)
  if (!url) return `must be a URL such as ${example}`
  if (url.username !== '' || url.password !== '') return 'must not carry user info'
  if (value.includes('#')) return 'must not carry a fragment'
  if (url.port === '0') return 'must not name port 0, which nothing listens on'
  return undefined
}

const COLLECTOR = 'http://collector:4318/v1/traces'
const collectorProblem = (value: string) => {
  const problem = addressProblem(value, COLLECTOR)
  return problem === 'must not carry user info' ? `${problem}; put the credential into \`headers\`` : problem
}

const storeProblem = (value: string) =>
  addressProblem(value, 'http://minio:9000') ?? (value.includes('?') ? 'must not carry a query' : undefined)

/** A folder as a URL. Its path is absolute: the folder that the gateway was started in is nobody's choice. */
function folderProblem(value: string): string | undefined {
  if (!/^file:\/\/\//i.test(value)) return 'must start with file:/// and name an absolute path, as in file:///var/log/aisix/usage'
  if (value.length > URL_CHARACTERS_MAX) return `must be at most ${URL_CHARACTERS_MAX} characters long`
  if (/[?#\\\u0000-\u001f\u007f]|%00/.test(value)) return 'must not hold a query, a fragment, control characters or backslashes'
  if (value.split('/').some(isDots)) return 'must not hold `.` or `..` as parts of the path'
  try {
    return folderPath(value) === '/' ? 'must name a folder below the root' : undefined
  } catch {
    return 'must be a URL such as file:///var/log/aisix/usage'
  }
}

/** throws: TypeError where the URL is no path of a file */
export function folderPath(endpoint: string): string {
  return fileURLToPath(endpoint).replace(/(?<=.)\/+$/, '')
}

/** In a URL `%2e` is a dot as well. */
const isDots = (part: string) => /^(?:\.|%2e){1,2}$/i.test(part)

/** Names that become parts of a path: none may climb out of its place. */
function bucketProblem(value: string): string | undefined {
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/.test(value)) return undefined
  return 'must be 1 to 255 letters, digits, ".", "_" and "-", a letter or digit first'
}
function prefixProblem(value: string): string | undefined {
  if (value === '') return 'must not be empty; `/` stands for none'
  if (value.length > 512) return 'must be at most 512 characters long'
  if (/[\\\u0000-\u001f\u007f]/.test(value) || !value.isWellFormed()) return 'must not hold control characters or backslashes'
  const parts = value.replace(/^\/+|\/+$/g, '').split('/')
  if (parts.length > 1 && parts.includes('')) return 'must not hold two slashes in a row'
  if (parts.some(part => part === '.' || part === '..')) return 'must not hold `.` or `..` as parts'
  return undefined
}

const name = () => text().max(120).describe('Name of the exporter, unique in this gateway.')
const enabled = () => defaulted(z.boolean(), true).describe('`false` delivers nothing.')

/** Headers that are the gateway's to say, because they tell of the body and the connection. */
const OWN_HEADERS: readonly string[] = [
  'accept-encoding',
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'host',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

const collectorHeaders = () =>
  z
    .record(z.string(), z.string())
    .superRefine((headers, context) => {
      const names = Object.keys(headers)
      // Such a name is not told: it may be a whole header line, with its credential.
      if (!names.every(isHeaderName)) {
        context.addIssue({
          code: 'custom',
          message: "the name of a header has only letters, digits and -_.!#$%&'*+^`|~, and its value stands apart from it",
        })
      }
      const refuse = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
      const seen = new Set<string>()
      for (const each of names.filter(isHeaderName)) {
        const lower = each.toLowerCase()
        if (OWN_HEADERS.includes(lower)) refuse(each, 'is set by the gateway: leave it out')
        if (seen.has(lower)) refuse(each, 'names a header twice: upper and lower case are alike')
        seen.add(lower)
        if (isHeaderValue(headers[each] ?? '')) continue
        refuse(
          each,
          'must hold only characters that a header can carry: no line breaks, no control characters, nothing beyond Latin-1',
        )
      }
    })
    .meta({ writeOnly: true })

/** Traces over OTLP/HTTP. source: control-resources §7; control.md row 16, any host over plain HTTP too */
export const OtlpHttpExporter = z
  .strictObject({
    name: name(),
    enabled: enabled(),
    kind: z.literal('otlp_http').describe('Traces to an OpenTelemetry collector.'),
    endpoint: checked(collectorProblem)
      .describe(`Whole URL of the traces path, such as \`${COLLECTOR}\`.`)
      .meta({ pattern: '^[hH][tT][tT][pP][sS]?://[^\\s\\\\#/][^\\s\\\\#]*$' }),
    headers: optional(collectorHeaders()).describe('Headers of every delivery, by name; their values are credentials.'),
    sample_rate: optional(z.number().min(0).max(1))
      .describe('Part of the requests that is delivered. All attempts of a request share its fate.')
      .meta({ default: 1 }),
    content_mode: defaulted(z.enum(['metadata_only', 'full']), 'metadata_only').describe(
      '`full` adds the texts of requests and answers.',
    ),
    content_max_bytes: defaulted(z.int().min(1).max(1_048_576), 131_072).describe(
      'Bytes that are kept of each text, with `content_mode` `full`.',
    ),
  })
  .meta({
    id: 'OtlpHttpExporter',
    examples: [{ name: 'collector', kind: 'otlp_http', endpoint: COLLECTOR, sample_rate: 0.05 }],
  })
export type OtlpHttpExporter = z.output<typeof OtlpHttpExporter>

const objectStoreKind = () => z.literal('object_store').describe('Usage records as objects of newline-delimited JSON.')
const compression = () => defaulted(z.enum(['gzip', 'none']), 'gzip').describe('Of each object.')

/** Objects in a store that speaks S3. source: control-resources §7 */
export const S3Exporter = z
  .strictObject({
    name: name(),
    enabled: enabled(),
    kind: objectStoreKind(),
    provider: z.literal('s3').describe('Amazon S3, or any store that speaks its protocol, such as MinIO.'),
    bucket: checked(bucketProblem).describe('Bucket, which must exist.').meta({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$' }),
    prefix: checked(prefixProblem).describe('What the keys of objects begin with; `/` for nothing.'),
    region: optional(z.string().regex(/^[a-z0-9-]{1,64}$/, 'must be a region such as us-east-1'))
      .describe('Region that requests are signed for.')
      .meta({ default: 'us-east-1' }),
    endpoint: optional(checked(storeProblem)).describe(
      'Root of the store, such as `http://minio:9000`; buckets are then a part of the path. Left out: Amazon S3 in `region`.',
    ),
    compression: compression(),
    auth_mode: defaulted(
      z.enum(['credential_ref'], { error: laterVersion(['cloud_identity'], '"credential_ref"') }),
      'credential_ref',
    ).describe('Where the credential comes from.'),
    credential_ref: text()
      .max(120)
      .describe(
        'Names the variables with the credential: `minio` those that begin with `OBJSTORE_CRED_MINIO_`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.',
      ),
  })
  .superRefine(({ bucket, endpoint }, context) => {
    // The bucket becomes a part of the host's name, and the certificate is for one level of names.
    if (endpoint !== undefined || /^[a-z0-9-]{3,63}$/.test(bucket)) return
    const message = 'must be 3 to 63 of a-z, 0-9 and "-" where there is no `endpoint`'
    context.addIssue({ code: 'custom', path: ['bucket'], message })
  })
  .meta({
    id: 'S3Exporter',
    anyOf: [{ required: ['endpoint'] }, { properties: { bucket: { type: 'string', pattern: '^[a-z0-9-]{3,63}$' } } }],
    examples: [
      {
        name: 'usage to minio',
        kind: 'object_store',
        provider: 's3',
        bucket: 'aisix',
        prefix: 'usage',
        endpoint: 'http://minio:9000',
        credential_ref: 'minio',
      },
    ],
  })
export type S3Exporter = z.output<typeof S3Exporter>

/**
 * Objects as files of a folder. A provider of its own and not `s3` with an address of another scheme: a folder has no
 * region and no credential, and what is required must not be without effect.
 */
export const FolderExporter = z
  .strictObject({
    name: name(),
    enabled: enabled(),
    kind: objectStoreKind(),
    provider: z.literal('file').describe('A folder of this machine.'),
    endpoint: checked(folderProblem)
      .describe('The folder, such as `file:///var/log/aisix/usage`. It is created where it is missing.')
      .meta({ pattern: '^[fF][iI][lL][eE]:///[^?#\\\\]+$' }),
    bucket: optional(checked(bucketProblem)).describe('Folder below it.'),
    prefix: optional(checked(prefixProblem)).describe('Folders below that.'),
    compression: compression(),
  })
  .meta({
    id: 'FolderExporter',
    examples: [{ name: 'usage files', kind: 'object_store', provider: 'file', endpoint: 'file:///var/log/aisix/usage' }],
  })
export type FolderExporter = z.output<typeof FolderExporter>

/** Kinds, and providers of one, each with members of its own. */
export const ObservabilityExporter = z.union([OtlpHttpExporter, S3Exporter, FolderExporter]).meta({
  id: 'ObservabilityExporter',
  description: 'Where records of requests are delivered: a collector of OpenTelemetry, an object store, or a folder.',
})
export type ObservabilityExporter = z.output<typeof ObservabilityExporter>

/** A document whose form cannot be told yet: what is wrong first of all is its `kind` or `provider`. */
const undecided = (shape: z.ZodRawShape) =>
  z
    .looseObject({ name: name(), ...shape })
    .superRefine((_document, context) => context.addIssue({ code: 'custom', message: 'is of no kind that there is' }))
    .transform((): ObservabilityExporter => z.NEVER)

const WithoutKind = undecided({
  kind: z.enum(['otlp_http', 'object_store'], { error: laterVersion(CLOUD_KINDS, '"otlp_http" or "object_store"') }),
})
const WithoutProvider = undecided({
  kind: objectStoreKind(),
  provider: z.enum(['s3', 'file'], { error: laterVersion(CLOUD_PROVIDERS, '"s3" or "file"') }),
})

const formOf = (schema: Form<ObservabilityExporter>['schema']): Form<ObservabilityExporter> => ({
  schema,
  foreignMember: () => undefined,
  deadMembers: [],
})
const S3_MEMBERS: readonly string[] = ['region', 'auth_mode', 'credential_ref']
const FORMS = {
  otlp: formOf(OtlpHttpExporter),
  s3: formOf(S3Exporter),
  folder: {
    schema: FolderExporter,
    foreignMember: (member: string) =>
      S3_MEMBERS.includes(member) ? `\`${member}\` belongs to \`provider\` \`s3\`, a folder has none: leave it out` : undefined,
    deadMembers: S3_MEMBERS,
  },
  withoutKind: formOf(WithoutKind),
  withoutProvider: formOf(WithoutProvider),
}

/** The form that `kind` and `provider` say. */
export function formOfExporter(document: Readonly<Record<string, unknown>>): Form<ObservabilityExporter> {
  const { kind, provider } = document
  if (kind === 'otlp_http') return FORMS.otlp
  if (kind !== 'object_store') return FORMS.withoutKind
  if (provider === 's3') return FORMS.s3
  return provider === 'file' ? FORMS.folder : FORMS.withoutProvider
}

import { z } from 'zod'
import { adapterNames } from '../adapters/names.ts'
import { isHeaderName, isHeaderValue } from '../lib/headers.ts'
import { parseCertificates } from '../lib/pem.ts'
import { defaulted, optional, text } from './fields.ts'

/** Inbound headers that a passthrough route does not forward, unless the provider key says otherwise. */
const STRIP_HEADERS = ['authorization', 'cookie', 'set-cookie', 'x-api-key']

/** What a credential reads as, and what keeps the stored one when it is written back. */
export const MASK = '***'

/** An address to which a path can be appended: no user info, query or fragment, which would end up in logs or be lost. */
export function checkApiBase(value: string): string | undefined {
  const trimmed = value.trim()
  if (trimmed === '') return undefined
  if (!/^https?:\/\//i.test(trimmed)) return 'must start with http:// or https://, as in http://10.0.0.5:8000/v1'
  // The URL parser repairs all of these in silence: of `http:///v1` it makes the host v1.
  if (/[\s\\\u0000-\u001f\u007f]/.test(trimmed)) return 'must not hold blanks, control characters or backslashes'
  if (/^https?:\/\/(\/|$)/i.test(trimmed)) return 'must name a host behind http:// or https://, as in http://10.0.0.5:8000/v1'
  const url = URL.parse(trimmed)
  if (!url) return 'must be a URL such as http://10.0.0.5:8000/v1'
  if (url.username !== '' || url.password !== '') return 'must not carry user info; put the credential into `secret`'
  if (/[?#]/.test(trimmed)) return 'must not carry a query or a fragment'
  if (url.port === '0') return 'must not name port 0, which nothing listens on; name the port of the server'
  return undefined
}

/** Certificates and nothing else: what is pasted beside them, a private key perhaps, would show in every read. */
function checkCertificates(value: string): string | undefined {
  const read = parseCertificates(value, { alone: true })
  if ('certificates' in read) return undefined
  if (read.problem === 'damaged') return `certificate ${read.number} is damaged`
  return read.problem === 'none'
    ? 'holds no PEM certificate (-----BEGIN CERTIFICATE-----)'
    : 'holds something other than certificates: leave in only the blocks of certificates, and no private key'
}

/** Blanks around a credential are never meant; one of blanks alone is left as it is, for the rule against it to see. */
const trimmed = (value: string) => value.trim() || value

function checkSecret(value: string): string | undefined {
  const secret = value.trim()
  if (secret === '') return value === '' ? undefined : 'must not be blank (a placeholder where the server needs no key)'
  if (/^[\x20-\x7e\xa0-\xff]+$/.test(secret)) return undefined
  return 'must hold only characters that a header can carry: no line breaks, no control characters, nothing beyond Latin-1'
}

/** Variables of header templates. Source: proxy-04 §2. */
export const HEADER_VARIABLES = [
  'request.id',
  'request.api_key.id',
  'request.api_key.name',
  'request.api_key.team_id',
  'request.api_key.user_id',
  'model.id',
  'model.name',
  'provider_key.id',
  'provider_key.name',
] as const

export const requestOverrides = z
  .strictObject({
    param_renames: defaulted(z.record(z.string(), text()), {}).describe(
      'Top-level members of the request body to rename, such as `max_tokens` to `max_completion_tokens`.',
    ),
    param_constraints: optional(
      z.strictObject({
        temperature_min: optional(z.number()).describe('A lower `temperature` is raised to this.'),
        temperature_max: optional(z.number()).describe('A higher `temperature` is lowered to this.'),
      }),
    ).describe('Bounds that numbers in the request are clamped to.'),
    default_headers: defaulted(z.record(text(), z.string().overwrite(trimmed)), {})
      .describe(
        `Headers added to the upstream request. Values may hold ${HEADER_VARIABLES.map(name => `\`\${${name}}\``).join(', ')}; a header with an empty variable is left out.`,
      )
      .meta({ writeOnly: true }),
    forward_client_headers: defaulted(z.array(text()), []).describe(
      "Names of the caller's headers to forward, each with at most one `*`. Credentials and transport headers are never forwarded. A header that the caller repeats arrives as one, its values joined by commas.",
    ),
    default_body_fields: defaulted(z.record(z.string(), z.json()), {}).describe(
      'Top-level members added to the request body when the caller did not send them.',
    ),
  })
  .describe('Changes made to each request before it goes upstream.')

export const responseOverrides = z
  .strictObject({
    stream_done_marker: optional(z.enum(['required', 'optional', 'none'])).describe(
      'Whether the upstream ends its streams with `[DONE]`. A missing one where it is `required` is logged.',
    ),
    content_list_to_string: defaulted(z.boolean(), false).describe(
      'Flatten text parts of messages to one string before sending, for servers that take no content arrays.',
    ),
    reasoning_field: optional(text()).describe('Path in a stream chunk to lift reasoning text from, such as `delta.thoughts`.'),
    native_responses: defaulted(z.boolean(), false).describe(
      'The server speaks the Responses API itself: `/v1/responses` is relayed to it, and not bridged over chat.',
    ),
    stream_usage: defaulted(z.enum(['inject', 'off']), 'inject').describe(
      '`inject` asks the upstream for usage on streams whose caller did not say; `off` leaves the request alone.',
    ),
    error_envelope: optional(z.string()).describe('Kept for documents of other gateways; has no effect.'),
  })
  .describe('What to expect of the answers.')

export const ProviderKey = z
  .strictObject({
    display_name: text().describe('Operator-facing label, unique in this gateway.'),
    provider: defaulted(z.string().max(64), '').describe(
      'Free label for the vendor or server, such as `vllm`. Only `openai` and `anthropic` choose a dialect.',
    ),
    adapter: optional(z.enum(adapterNames)).describe('Dialect the upstream speaks.'),
    secret: optional(text().overwrite(trimmed))
      .describe(
        'Upstream credential, sent as the bearer token. A placeholder where the server needs none. Exactly one of `secret` and `api_key`.',
      )
      .meta({ writeOnly: true }),
    api_key: optional(text().overwrite(trimmed))
      .describe('Other spelling of `secret`, which it reads as.')
      .meta({ writeOnly: true, 'x-alias-of': 'secret' }),
    api_base: optional(
      z.string().superRefine((value, context) => {
        const problem = checkApiBase(value)
        if (problem) context.addIssue({ code: 'custom', message: problem })
      }),
    )
      .describe('Endpoint root, with `/v1` where the server routes on it, such as `http://10.0.0.5:8000/v1`.')
      .meta({ pattern: '^\\s*([hH][tT][tT][pP][sS]?://[^\\s\\\\?#]+)?\\s*$' }),
    strip_headers: defaulted(z.array(z.string()), STRIP_HEADERS)
      .transform(names => [...new Set(names.map(name => name.trim().toLowerCase()).filter(name => name !== ''))])
      .describe('Inbound headers that passthrough routes do not forward.'),
    request: optional(requestOverrides),
    response: optional(responseOverrides),
    tls: optional(
      z.strictObject({
        ca_cert: optional(text()).describe(
          'PEM text, one or more certificates and nothing else, trusted for this endpoint besides the usual roots.',
        ),
        verify: defaulted(z.boolean(), true).describe('`false` accepts any certificate; only for tests.'),
      }),
    ).describe('TLS of this endpoint alone.'),
    telemetry_tags: defaulted(
      z.strictObject({
        kind: optional(z.enum(['catalog', 'byo'])).describe('Whether the endpoint comes from a catalog or is your own.'),
        featured: defaulted(z.boolean(), false).describe('Copied as it is.'),
        branded_provider: optional(z.string()).describe('Copied as it is.'),
        pk_label: optional(z.string()).describe('Copied as it is.'),
        byo_label: optional(z.string()).describe('Copied as it is.'),
      }),
      { featured: false },
    ).describe('Labels copied into usage records.'),
  })
  .superRefine(
    (value, context) => {
      const isGiven = (credential: unknown) => credential !== undefined && credential !== null
      if (isGiven(value.secret) && isGiven(value.api_key)) {
        context.addIssue({ code: 'custom', path: ['api_key'], message: 'duplicate field: give `secret` or `api_key`, not both' })
      } else if (!isGiven(value.secret) && !isGiven(value.api_key)) {
        context.addIssue({
          code: 'custom',
          path: ['secret'],
          message: 'is required (a placeholder where the server needs no key)',
        })
      }
    },
    // Also when other members are wrong: an operator should hear of everything at once.
    { when: ({ value }) => isRecord(value) },
  )
  .transform(({ api_key, ...value }) => ({ ...value, secret: value.secret ?? api_key ?? '' }))
  .meta({
    id: 'ProviderKey',
    oneOf: [{ required: ['secret'] }, { required: ['api_key'] }],
    examples: [
      {
        display_name: 'vllm-private',
        provider: 'vllm',
        adapter: 'openai',
        secret: 'not-used-by-vllm',
        api_base: 'http://10.0.0.5:8000/v1',
      },
    ],
  })

export type ProviderKey = z.output<typeof ProviderKey>

/** What a rule of writing finds: where, and what is wrong, without the value. */
export type Refusal = { path: string[]; message: string }

/**
 * What a written provider key must not hold beyond the rules of the schema: what no request could send, and what a read
 * would show. Stored documents are not held to it: a row of before goes on serving, and requests tell what is wrong with it.
 * in: the document as it was submitted, whether the schema takes it or not, so that all problems are told at once
 */
export function refusalsOfProviderKey(document: Readonly<Record<string, unknown>>): Refusal[] {
  const refusals: Refusal[] = []
  const check = (path: string[], value: unknown, problem: (value: string) => string | undefined) => {
    const message = typeof value === 'string' ? problem(value) : undefined
    if (message !== undefined) refusals.push({ path, message })
  }
  check(['secret'], document.secret, checkSecret)
  check(['api_key'], document.api_key, checkSecret)
  const { request, tls } = document
  const headers = isRecord(request) && isRecord(request.default_headers) ? Object.entries(request.default_headers) : []
  const place = ['request', 'default_headers']
  // Such a name is not told: it may be a whole header line, with its credential.
  if (headers.some(([name]) => name !== '' && !isHeaderName(name))) {
    refusals.push({
      path: place,
      message: "the name of a header has only letters, digits and -_.!#$%&'*+^`|~, and its value stands apart from it",
    })
  }
  for (const [name, value] of headers) {
    if (!isHeaderName(name)) continue
    check([...place, name], value, each =>
      isHeaderValue(each)
        ? undefined
        : 'must hold only characters that a header can carry: no line breaks, no control characters, nothing beyond Latin-1',
    )
  }
  if (isRecord(tls)) check(['tls', 'ca_cert'], tls.ca_cert, value => (value === '' ? undefined : checkCertificates(value)))
  return refusals
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

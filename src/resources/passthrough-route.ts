import { z } from 'zod'
import { CREDENTIAL_HEADERS } from '../lib/headers.ts'
import { defaulted, optional, text } from './fields.ts'
import { checkApiBase } from './provider-key.ts'

/** First segments that a route without hosts must leave to the gateway's own endpoints. */
const RESERVED = ['v1', 'mcp', 'a2a', 'admin', 'livez', 'readyz', 'metrics']
const RESERVED_PREFIX = `^/(${RESERVED.join('|')})(/|$)`

/** Headers that carry credentials of other schemes: no route gives them another meaning. */
const NEVER_NAMED = ['authorization', 'proxy-authorization', 'cookie', 'set-cookie', 'x-api-key']
/** Headers of the connection, which say how a message is sent and nothing about who sends it. */
const OF_THE_CONNECTION = [
  ...['connection', 'content-length', 'expect', 'host', 'keep-alive', 'proxy-authenticate', 'proxy-connection'],
  ...['te', 'trailer', 'transfer-encoding', 'upgrade'],
]

type Check = (value: string) => string | undefined

/** A string that a function finds nothing wrong with. */
const checked = (check: Check) =>
  z.string().superRefine((value, context) => {
    const message = check(value)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })

function prefixProblem(value: string): string | undefined {
  if (!value.startsWith('/')) return 'must start with /, as in /openai'
  if (!/^[!-~]+$/.test(value)) return 'must hold no blanks and only ASCII: percent-encode everything else'
  if (/[?#\\]/.test(value)) return 'must be a path alone, without a query, a fragment or backslashes'
  if (value.includes('//')) return 'must not hold an empty segment'
  if (/\/\.{1,2}(\/|$)/.test(value)) return 'must not hold the segments . and .., which no request keeps'
  return undefined
}

function hostProblem(value: string): string | undefined {
  if (/[/@]/.test(value)) return 'must be a host name alone, such as api.example.com'
  if (value.includes(':')) return 'must not carry a port: any port matches'
  if (value.replace(/^\*\./, '').includes('*')) return 'may have a * only in front, for one label: *.example.com'
  if (value.length <= 253 && HOST.test(value)) return undefined
  return 'must be a host name such as api.example.com, or *.example.com for any one label in front of it'
}
const HOST = /^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i

function targetProblem(value: string): string | undefined {
  if (value.trim() === '') return 'must not be empty'
  const url = URL.parse(value.trim())
  if (url && (url.username !== '' || url.password !== '')) {
    return 'must not carry user info: the credential belongs to the provider key'
  }
  return checkApiBase(value)
}

const headerProblem =
  (never: readonly string[]): Check =>
  value => {
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(value)) return 'must be the name of a header in lower case, such as x-gateway-key'
    if (never.includes(value)) return 'must not be a header that carries a credential of its own'
    if (OF_THE_CONNECTION.includes(value)) return 'must not be a header of the connection'
    return undefined
  }
const HEADER_NAME = "^[!#$%&'*+.^_`|~0-9a-z-]+$"

const isMode = (member: string, ...modes: string[]) => ({ properties: { [member]: { enum: modes } } })
const PRESERVES_HOST = { required: ['preserve_host'], properties: { preserve_host: { const: true } } }

/**
 * A part of the proxy listener that is relayed as it is to one server, whatever API it speaks.
 * source: control-resources §11, proxy-03 §12
 */
export const PassthroughRoute = z
  .strictObject({
    name: optional(text().max(256)).describe(
      'Name of the route, unique in this gateway: what caller keys list in `allowed_routes`. Exactly one of `name` and `display_name`.',
    ),
    display_name: optional(text().max(256))
      .describe('Other spelling of `name`, which it reads as.')
      .meta({ 'x-alias-of': 'name' }),
    path_prefix: optional(checked(prefixProblem))
      .describe(
        `Whole segments that the path of a request begins with; they are taken away before the rest goes behind \`target_url\`. At least one of \`path_prefix\` and \`hosts\`; without \`hosts\` the first segment must not be ${RESERVED.map(each => `\`${each}\``).join(', ')}.`,
      )
      .meta({ pattern: '^/[!-~]*$' }),
    hosts: optional(z.array(checked(hostProblem).overwrite(host => host.toLowerCase())).min(1)).describe(
      'Values of `Host` that lead here before any endpoint of the gateway, whatever their port: names, or `*.example.com` for any one label.',
    ),
    target_url: optional(checked(targetProblem).overwrite(url => url.trim()))
      .describe('Root of the server, such as `https://api.example.com/v1`. Exactly one of this and `preserve_host: true`.')
      .meta({ pattern: '^\\s*[hH][tT][tT][pP][sS]?://[^\\s\\\\?#]+\\s*$' }),
    preserve_host: defaulted(z.boolean(), false).describe(
      '`true` sends the request to `https://` and the host that it named, with its whole path. Needs `hosts`.',
    ),
    auth_mode: defaulted(z.enum(['gateway_key', 'header_key', 'anonymous']), 'gateway_key').describe(
      'Where callers show their key: as everywhere, in `auth_header_name`, or nowhere, and they act as `anonymous_key_id`.',
    ),
    auth_header_name: optional(checked(headerProblem(NEVER_NAMED)))
      .describe('Header with the caller key, with or without `Bearer `. Required for and only with `auth_mode` `header_key`.')
      .meta({ pattern: HEADER_NAME }),
    anonymous_key_id: optional(text()).describe(
      'Id of the caller key that everybody acts as. Required for and only with `auth_mode` `anonymous`.',
    ),
    source_cidrs: optional(z.array(z.string())).describe(
      'Networks that requests may come from. Required with `auth_mode` `anonymous`; otherwise left out or empty: all.',
    ),
    credential_mode: defaulted(z.enum(['inject', 'forward_client']), 'inject').describe(
      "`inject` sends the credential of `provider_key_id` in place of the caller's; `forward_client` the caller's own, without its gateway key.",
    ),
    provider_key_id: optional(text()).describe('Id of the provider key. Required for `inject`, refused for `forward_client`.'),
    identity_header: optional(checked(headerProblem([...NEVER_NAMED, ...CREDENTIAL_HEADERS])))
      .describe('Header that names the end user: recorded, and not sent on.')
      .meta({ pattern: HEADER_NAME }),
    timeout_ms: optional(z.int().min(1).max(2_147_483_647)).describe(
      'Milliseconds until the answer begins, and then of silence in it. Left out: `upstream.timeout_ms`.',
    ),
    enabled: defaulted(z.boolean(), true).describe('`false`: no request matches the route.'),
  })
  .superRefine((route, context) => {
    const problem = (member: string, message: string) => context.addIssue({ code: 'custom', path: [member], message })
    if (route.name !== undefined && route.display_name !== undefined) {
      problem('display_name', 'duplicate field: give `name` or `display_name`, not both')
    }
    if (route.name === undefined && route.display_name === undefined) problem('name', 'is required')

    if (route.path_prefix === undefined && route.hosts === undefined) {
      problem('path_prefix', 'at least one of `path_prefix` and `hosts` is required')
    }
    if (route.hosts === undefined && new RegExp(RESERVED_PREFIX).test(route.path_prefix ?? '')) {
      const segment = route.path_prefix?.split('/')[1]
      problem('path_prefix', `must not begin with /${segment}, which is the gateway's own, unless the route has \`hosts\``)
    }

    if (route.preserve_host && route.target_url !== undefined) {
      problem('target_url', 'has no meaning with `preserve_host`: give one of both')
    }
    if (!route.preserve_host && route.target_url === undefined) {
      problem('target_url', 'exactly one of `target_url` and `preserve_host: true` is required')
    }
    if (route.preserve_host && route.hosts === undefined) {
      problem('preserve_host', 'needs `hosts`: else callers would choose where requests go')
    }

    const { auth_mode, credential_mode } = route
    if ((auth_mode === 'header_key') !== (route.auth_header_name !== undefined)) {
      problem('auth_header_name', onlyMessage('auth_mode', 'header_key', auth_mode))
    }
    if ((auth_mode === 'anonymous') !== (route.anonymous_key_id !== undefined)) {
      problem('anonymous_key_id', onlyMessage('auth_mode', 'anonymous', auth_mode))
    }
    if (auth_mode === 'anonymous' && (route.source_cidrs ?? []).length === 0) {
      problem('source_cidrs', 'is required with `auth_mode` `anonymous`, at least one network')
    }
    if ((credential_mode === 'inject') !== (route.provider_key_id !== undefined)) {
      problem('provider_key_id', onlyMessage('credential_mode', 'inject', credential_mode))
    }
    if (route.identity_header !== undefined && route.identity_header === route.auth_header_name) {
      problem('identity_header', 'must not be `auth_header_name`: the key would be recorded')
    }
  })
  .transform(({ name, display_name, ...route }) => ({ name: name ?? display_name ?? '', ...route }))
  .meta({
    id: 'PassthroughRoute',
    oneOf: [{ required: ['name'] }, { required: ['display_name'] }],
    allOf: [
      { anyOf: [{ required: ['path_prefix'] }, { required: ['hosts'] }] },
      { anyOf: [{ required: ['hosts'] }, { properties: { path_prefix: { not: { pattern: RESERVED_PREFIX } } } }] },
      { oneOf: [{ required: ['target_url'] }, PRESERVES_HOST] },
      { anyOf: [{ required: ['hosts'] }, { not: PRESERVES_HOST }] },
      {
        anyOf: [
          { required: ['auth_mode', 'auth_header_name'], ...isMode('auth_mode', 'header_key') },
          { not: { required: ['auth_header_name'] }, ...isMode('auth_mode', 'gateway_key', 'anonymous') },
        ],
      },
      {
        anyOf: [
          {
            required: ['auth_mode', 'anonymous_key_id', 'source_cidrs'],
            properties: { auth_mode: { const: 'anonymous' }, source_cidrs: { minItems: 1 } },
          },
          { not: { required: ['anonymous_key_id'] }, ...isMode('auth_mode', 'gateway_key', 'header_key') },
        ],
      },
      {
        anyOf: [
          { required: ['provider_key_id'], ...isMode('credential_mode', 'inject') },
          {
            required: ['credential_mode'],
            not: { required: ['provider_key_id'] },
            ...isMode('credential_mode', 'forward_client'),
          },
        ],
      },
    ],
    examples: [
      {
        name: 'openai',
        path_prefix: '/openai',
        target_url: 'https://api.openai.com/v1',
        provider_key_id: '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11',
      },
    ],
  })
export type PassthroughRoute = z.output<typeof PassthroughRoute>

function onlyMessage(member: string, value: string, given: string): string {
  return given === value ? `is required with \`${member}\` \`${value}\`` : `belongs to \`${member}\` \`${value}\`: leave it out`
}

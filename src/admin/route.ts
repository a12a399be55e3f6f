import type { Kind } from '../resources/index.ts'
import type { AddressSource } from '../status/front-door.ts'
import type { AuditAction } from '../store/audit.ts'
import type { Actor } from '../store/store.ts'
import type { AdminErrorStatus } from './error.ts'
import type { JsonSchema } from './schema.ts'

/** One request as a handler sees it: routed, and authenticated where the route asks for it. */
export type Call = {
  request: Request
  server: AddressSource | undefined
  url: URL
  /** Value of `{id}` in the path; empty on paths without it. */
  id: string
  actor: Actor
}

/** What the reference says about a route; `openapi.ts` makes an OpenAPI operation of it. */
export type Description = {
  operationId: string
  tag: string
  summary: string
  description?: string
  /** What `{id}` is; said where it is not the id of an entry. */
  idDescription?: string
  /** Parameters beside `{id}`, which follows from the path. */
  parameters?: readonly { name: string; in: 'query'; required: boolean; description: string; schema: JsonSchema }[]
  /** Body of the request, with at least one example that is accepted as it stands. */
  body?: { schema: JsonSchema; examples: unknown[] }
  /** Body of the 200, JSON unless a content type is given. */
  success: { description: string; schema?: JsonSchema; example?: unknown; contentType?: string }
  /** Statuses besides 200 that the route answers, beyond what follows from `auth`: 401 and 500, or all that the proxy answers. */
  errors: readonly ErrorStatus[]
  /** What they mean on this route, where that is not what they usually mean. */
  errorDescriptions?: Partial<Record<ErrorStatus, string>>
  /** Errors are lines of text, as probes expect them, and not the envelope. */
  errorsInPlainText?: true
}

export const ERROR_DESCRIPTIONS: Readonly<Record<AdminErrorStatus, string>> = {
  400: 'The body is no JSON object, or breaks a rule of the schema; the message names each place and rule.',
  401: 'No admin key, or none that this gateway knows.',
  403: 'The admin key is that of a viewer, who may read and change nothing.',
  404: 'There is no such resource.',
  408: 'The body did not arrive in time.',
  409: 'Another resource has this name or key hash, or resources are kept in a file.',
  413: 'The body is larger than 2 MiB.',
  415: 'The body is not `application/json`.',
  500: 'The store could not take the write, or the gateway failed; nothing was changed.',
  501: 'No proxy is attached.',
  503: 'Not healthy; the body lists the checks.',
}

/** What the proxy answers in its own envelope. source: src/errors.ts */
export const CALLER_ERROR_DESCRIPTIONS = {
  400: 'The request is no chat completion, or its provider key cannot serve it.',
  401: "No caller's key, one that is unknown, disabled or expired, or a secret of the provider key that cannot be sent.",
  403: 'The key may not use the model, or the model is not open to the address of the caller.',
  404: 'There is no such model.',
  408: 'The body did not arrive in time.',
  413: 'The body is larger than `proxy.request_body_limit_bytes`.',
  415: 'The body is compressed.',
  429: 'A limit of the key, the model or a policy is used up, or the upstream said so; `retry-after` tells when there is room again.',
  500: 'The gateway failed; its log has the cause.',
  501: 'The provider key speaks a dialect that has no chat completions here, or no proxy is attached.',
  502: 'The upstream failed, could not be reached, or answered what cannot be read.',
  503: 'No target of the group is available, or the provider key is gone.',
  504: 'The upstream did not answer in time.',
} as const

export type CallerErrorStatus = keyof typeof CALLER_ERROR_DESCRIPTIONS
type ErrorStatus = keyof typeof ERROR_DESCRIPTIONS

/** Whether an admin key with the role of a viewer is refused there. */
export function isForAdmins({ method, auth, isSecret }: Pick<Route, 'method' | 'auth' | 'isSecret'>): boolean {
  return auth === 'admin' && (method !== 'GET' || isSecret === true)
}

export type Route = {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Path with `{id}` for the one segment that may vary. */
  path: string
  /** `caller`: the handler takes a caller's key itself. */
  auth: 'admin' | 'caller' | 'none'
  /** A read that viewers may not have, because there are secrets in it. They may never change anything. */
  isSecret?: true
  /** What a refusal of the route is called in the audit log; given where it changes something. */
  change?: { kind: Kind; action: AuditAction }
  describe: Description
  handle(call: Call): Response | Promise<Response>
}

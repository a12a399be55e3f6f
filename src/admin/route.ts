import type { AddressSource } from '../status/front-door.ts'
import type { Actor } from '../store/store.ts'
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
  /** Parameters beside `{id}`, which follows from the path. */
  parameters?: readonly { name: string; in: 'query'; required: boolean; description: string; schema: JsonSchema }[]
  /** Body of the request, with at least one example that is accepted as it stands. */
  body?: { schema: JsonSchema; examples: unknown[] }
  /** Body of the 200, JSON unless a content type is given. */
  success: { description: string; schema?: JsonSchema; example?: unknown; contentType?: string }
  /** Statuses besides 200 that the route answers, beyond 401 and 500, which follow from `auth`. */
  errors: readonly (keyof typeof ERROR_DESCRIPTIONS)[]
  /** Errors are lines of text, as probes expect them, and not the envelope. */
  errorsInPlainText?: true
}

export const ERROR_DESCRIPTIONS = {
  400: 'The body is no JSON object, or breaks a rule of the schema; the message names each place and rule.',
  401: 'No admin key, or none that this gateway knows.',
  404: 'There is no such resource.',
  408: 'The body did not arrive in time.',
  409: 'Another resource has this name or key hash.',
  413: 'The body is larger than 2 MiB.',
  415: 'The body is not `application/json`.',
  500: 'The store could not take the write, or the gateway failed; nothing was changed.',
  501: 'No proxy is attached.',
  503: 'Not healthy; the body lists the checks.',
} as const

/** The same where the proxy answers, in its own envelope. */
export const CALLER_ERROR_DESCRIPTIONS: Partial<Record<keyof typeof ERROR_DESCRIPTIONS, string>> = {
  400: 'The request is no chat completion, or its provider key cannot serve it.',
  401: "No caller's key, one that is unknown, disabled or expired, or a secret of the provider key that cannot be sent.",
  404: 'There is no such model.',
  500: 'The gateway failed; its log has the cause.',
}

export type Route = {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Path with `{id}` for the one segment that may vary. */
  path: string
  /** `caller`: the handler takes a caller's key itself. */
  auth: 'admin' | 'caller' | 'none'
  describe: Description
  handle(call: Call): Response | Promise<Response>
}

/**
 * The registry of resources. From each row come the admin routes, validation, OpenAPI, storage, masking and the
 * reference text; a resource is one schema file and one row here.
 */
import type { z } from 'zod'
import { ApiKey } from './api-key.ts'
import { Budget } from './budget.ts'
import type { Form } from './form.ts'
import { formOfModel, Model } from './model.ts'
import { formOfExporter, ObservabilityExporter } from './observability-exporter.ts'
import { PassthroughRoute } from './passthrough-route.ts'
import { ProviderKey, type Refusal, refusalsOfProviderKey } from './provider-key.ts'
import { formOfPolicy, RateLimitPolicy } from './rate-limit-policy.ts'

export type ResourceKind = {
  /** Name of the schema in messages and in OpenAPI. */
  name: string
  schema: z.ZodType
  /** Path segments under `/admin/v1/`; the first is the canonical one. */
  paths: readonly [string, ...string[]]
  /** Tag in OpenAPI. */
  tag: string
  /** Member whose value is unique within the kind, compared exactly. */
  unique: string
  /**
   * Members that are in the contract but whose feature this version does not have: a write that carries one is refused,
   * because a limit or a rule that is accepted and not enforced is worse than none.
   */
  unsupported: readonly string[]
  /** Rules for writes alone, which stored documents are not held to. in: the document as it was submitted */
  refusals?: (document: Readonly<Record<string, unknown>>) => Refusal[]
  /**
   * Of a kind that has several forms, the one that a document is to be judged by: a union could not tell what is wrong.
   * in: any object
   */
  formOf?: (document: Readonly<Record<string, unknown>>) => Form
}

export const RESOURCES = {
  provider_keys: {
    name: 'ProviderKey',
    schema: ProviderKey,
    paths: ['provider_keys'],
    tag: 'Provider Keys',
    unique: 'display_name',
    unsupported: [],
    refusals: refusalsOfProviderKey,
  },
  models: {
    name: 'Model',
    schema: Model,
    paths: ['models'],
    tag: 'Models',
    unique: 'display_name',
    unsupported: ['ensemble', 'semantic', 'embedding', 'auto_prompt_caching'],
    formOf: formOfModel,
  },
  api_keys: {
    name: 'ApiKey',
    schema: ApiKey,
    paths: ['apikeys', 'api_keys'],
    tag: 'Caller API Keys',
    unique: 'key_hash',
    unsupported: ['mcp_access', 'mcp_rate_limits', 'allowed_agents', 'jwt_subject', 'jwt_provider'],
  },
  rate_limit_policies: {
    name: 'RateLimitPolicy',
    schema: RateLimitPolicy,
    paths: ['rate_limit_policies'],
    tag: 'Rate Limit Policies',
    unique: 'name',
    unsupported: [],
    formOf: formOfPolicy,
  },
  budgets: {
    name: 'Budget',
    schema: Budget,
    paths: ['budgets'],
    tag: 'Budgets',
    unique: 'name',
    unsupported: [],
  },
  observability_exporters: {
    name: 'ObservabilityExporter',
    schema: ObservabilityExporter,
    paths: ['observability_exporters'],
    tag: 'Observability Exporters',
    unique: 'name',
    unsupported: [],
    formOf: formOfExporter,
  },
  passthrough_routes: {
    name: 'PassthroughRoute',
    schema: PassthroughRoute,
    paths: ['passthrough_routes'],
    tag: 'Passthrough Routes',
    unique: 'name',
    unsupported: [],
  },
} as const satisfies Record<string, ResourceKind>

export type Kind = keyof typeof RESOURCES
export type Resource = {
  provider_keys: ProviderKey
  models: Model
  api_keys: ApiKey
  rate_limit_policies: RateLimitPolicy
  budgets: Budget
  observability_exporters: ObservabilityExporter
  passthrough_routes: PassthroughRoute
}
export const kinds = Object.keys(RESOURCES) as Kind[]

/** The registry with the type of each kind's documents: what code that works for any kind is written against. */
export const REGISTRY: {
  readonly [K in Kind]: Omit<ResourceKind, 'schema' | 'formOf'> & {
    schema: z.ZodType<Resource[K]>
    formOf?: (document: Readonly<Record<string, unknown>>) => Form<Resource[K]>
  }
} = RESOURCES

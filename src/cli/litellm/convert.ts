/**
 * LiteLLM's `config.yaml` as a resources file. Sources: LiteLLM's documentation, "Proxy config.yaml", "Routing", "Fallbacks";
 * control-resources-file §1-4.
 */
import { stringify } from 'yaml'
import type { Tree } from '../../config/file.ts'
import { printable } from '../../lib/log.ts'
import { type Deployment, readDeployment, type SecondsReader, type Server } from './deployment.ts'
import { type Note, Reference, Section } from './section.ts'

export type Converted = {
  /** Text of the resources file. */
  text: string
  counts: { provider_keys: number; models: number; api_keys: number }
  notes: Note[]
  /** Whether a secret stands in the text as it is. */
  hasSecrets: boolean
}

/** in: the file as `readTree` gives it, with texts as they stand */
export function convertLitellm(tree: Tree): Converted {
  const notes: Note[] = []
  const root = new Section(tree, [], notes)
  const defaults = readSettings(root)
  const deployments = root.sections('model_list').flatMap(entry => readDeployment(entry, milliseconds) ?? [])
  if (root.take('model_list') === undefined) root.note('has no model_list: there is nothing to import')
  const providerKeys = new ProviderKeys()
  const models = new Models(deployments, defaults, providerKeys, root).all()
  const apiKeys = masterKey(defaults.master)
  readRest(root)

  const collections = { provider_keys: providerKeys.documents, models, api_keys: apiKeys }
  const given = Object.entries(collections).filter(([, documents]) => documents.length > 0)
  const document = { _format_version: '1', ...Object.fromEntries(given) }
  return {
    text: stringify(written(document), { lineWidth: 0, defaultStringType: 'PLAIN', aliasDuplicateObjects: false }),
    counts: { provider_keys: providerKeys.documents.length, models: models.length, api_keys: apiKeys.length },
    notes,
    hasSecrets: providerKeys.hasSecrets,
  }
}

/** Texts as a resources file has them: `$` doubled where it is meant as it stands. */
function written(value: unknown): unknown {
  if (value instanceof Reference) return `\${${value.name}}${value.suffix}`
  if (typeof value === 'string') return value.replaceAll('$', '$$$$')
  if (Array.isArray(value)) return value.map(written)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, written(each)]))
}

const milliseconds: SecondsReader = (section, key) => {
  const seconds = section.number(key)
  return seconds === undefined ? undefined : Math.round(seconds * 1000)
}

type Settings = {
  strategy: string
  retries: number | undefined
  timeout: number | undefined
  streamTimeout: number | undefined
  cooldown: Record<string, unknown> | undefined
  /** Aliases to try, by the alias that failed, with a word on the place that says so. */
  fallbacks: Map<string, { names: string[]; note: (text: string) => void }>
  defaultFallbacks: string[]
  /** Whether requests choose targets by tags; without it LiteLLM takes no notice of them. */
  obeysTags: boolean
  aliases: { name: string; target: string; note: (text: string) => void }[]
  master: string | Reference | undefined
}

/** source: LiteLLM, "Routing", strategies */
const STRATEGIES: Readonly<Record<string, string>> = {
  'simple-shuffle': 'round_robin',
  'least-busy': 'least_busy',
  'latency-based-routing': 'least_latency',
  'cost-based-routing': 'least_cost',
}

function readSettings(root: Section): Settings {
  const router = root.section('router_settings')
  const litellm = root.section('litellm_settings')
  const general = root.section('general_settings')
  const fallbacks: Settings['fallbacks'] = new Map()
  for (const section of [router, litellm]) {
    for (const entry of section?.sections('fallbacks') ?? []) {
      for (const alias of entry.keys()) {
        const names = [...(fallbacks.get(alias)?.names ?? []), ...entry.words(alias)]
        fallbacks.set(alias, { names, note: text => entry.note(text, alias) })
      }
    }
  }
  const routed = router?.word('routing_strategy') ?? 'simple-shuffle'
  const strategy = Object.hasOwn(STRATEGIES, routed) ? STRATEGIES[routed] : undefined
  if (strategy === undefined) router?.note('has no counterpart: groups take turns by weight (round_robin)', 'routing_strategy')
  const cooldownTime = router?.number('cooldown_time')
  const settings: Settings = {
    strategy: strategy ?? 'round_robin',
    retries: first(router?.number('num_retries', { isWhole: true }), litellm?.number('num_retries', { isWhole: true }), () =>
      litellm?.note('router_settings say it, too, and go first', 'num_retries'),
    ),
    timeout: first(router && milliseconds(router, 'timeout'), litellm && milliseconds(litellm, 'request_timeout'), () =>
      litellm?.note('router_settings.timeout goes first', 'request_timeout'),
    ),
    streamTimeout: router && milliseconds(router, 'stream_timeout'),
    cooldown:
      router?.flag('disable_cooldowns') === true
        ? { enabled: false }
        : cooldownTime === undefined
          ? undefined
          : { default_seconds: Math.ceil(cooldownTime) },
    fallbacks,
    defaultFallbacks: [...(router?.words('default_fallbacks') ?? []), ...(litellm?.words('default_fallbacks') ?? [])],
    obeysTags: router?.flag('enable_tag_filtering') === true,
    aliases: [...readAliases(router), ...readAliases(litellm)],
    master: general?.text('master_key'),
  }
  if (settings.master !== undefined) {
    general?.note('becomes a key that may use every model; for the admin API set admin.admin_keys in config.yaml', 'master_key')
  }
  if (settings.obeysTags) router?.note('requests name their tags in the header x-aisix-routing-tags here', 'enable_tag_filtering')
  router?.rest(ROUTER_REASONS)
  litellm?.rest(LITELLM_REASONS)
  general?.rest(GENERAL_REASONS)
  return settings
}

/** What may stand in two places: the router's own goes first. */
function first<T>(own: T | undefined, other: T | undefined, onBoth: () => void): T | undefined {
  if (own !== undefined && other !== undefined) onBoth()
  return own ?? other
}

function readAliases(section: Section | undefined): Settings['aliases'] {
  const aliases = section?.section('model_group_alias')
  return (aliases?.keys() ?? []).flatMap(name => {
    const note = (text: string) => aliases?.note(text, name)
    const value = aliases?.take(name)
    if (typeof value === 'string') return [{ name, target: value, note }]
    const detailed = aliases?.section(name)
    const target = detailed?.word('model')
    if (detailed?.flag('hidden')) detailed.note('an alias cannot be hidden; callers whose keys allow it see it', 'hidden')
    detailed?.rest({})
    return target === undefined ? [] : [{ name, target, note }]
  })
}

/** Provider keys, one for each server and credential, with names made of what they are. */
class ProviderKeys {
  readonly documents: Record<string, unknown>[] = []
  hasSecrets = false
  private readonly names = new Map<string, string>()

  nameOf(server: Server): string {
    const identity = JSON.stringify(written(server))
    const known = this.names.get(identity)
    if (known !== undefined) return known
    const { label, adapter, base, secret, headers, body, verifiesTls } = server
    const host = typeof base === 'string' ? URL.parse(base)?.host : base?.name.toLowerCase()
    const wanted = host === undefined || host === '' ? label : `${label}-${host}`
    const name = unused(wanted, new Set(this.names.values()))
    this.names.set(identity, name)
    // A placeholder is no secret; every other text that is no reference may be one.
    this.hasSecrets ||=
      (typeof secret === 'string' && secret !== 'not-used') || Object.values(headers).some(each => typeof each === 'string')
    const request = {
      ...(Object.keys(headers).length > 0 ? { default_headers: headers } : {}),
      ...(Object.keys(body).length > 0 ? { default_body_fields: body } : {}),
    }
    this.documents.push({
      display_name: name,
      provider: label,
      adapter,
      secret,
      ...(base === undefined ? {} : { api_base: base }),
      ...(Object.keys(request).length > 0 ? { request } : {}),
      ...(verifiesTls ? {} : { tls: { verify: false } }),
    })
    return name
  }
}

type Target = { model: string; weight?: number; priority?: number; tags?: string[] }

/** Direct models, and a group for every name that several of them, fallbacks or an alias share. */
class Models {
  private readonly documents: Record<string, unknown>[] = []
  /** Targets that a name stands for, its own fallbacks left out. */
  private readonly targets = new Map<string, Target[]>()
  private readonly taken: Set<string>
  private hasGroups = false

  constructor(
    private readonly deployments: readonly Deployment[],
    private readonly settings: Settings,
    private readonly providerKeys: ProviderKeys,
    private readonly root: Section,
  ) {
    this.taken = new Set([...deployments.map(({ alias }) => alias), ...settings.aliases.map(({ name }) => name)])
  }

  all(): Record<string, unknown>[] {
    const { fallbacks, aliases } = this.settings
    const byAlias = Map.groupBy(this.deployments, ({ alias }) => alias)
    const isGroup = (alias: string, members: readonly Deployment[]) => members.length > 1 || this.fallbacksOf(alias).length > 0
    for (const [alias, members] of byAlias) {
      if (alias.includes('*')) this.addPattern(alias, members)
      else if (isGroup(alias, members)) {
        const weights = weightsOf(members)
        this.targets.set(
          alias,
          members.map((each, i) => this.addMember(each, weights[i])),
        )
      } else this.addSingle(alias, members)
    }
    const usable = aliases.filter(({ name, target, note }) => {
      const targets = this.targets.get(target)
      if (byAlias.has(name)) note('a model of this name is there already; the alias is left out')
      else if (!targets) note('stands for no model that was imported; left out')
      else this.targets.set(name, targets)
      return !byAlias.has(name) && targets !== undefined
    })
    for (const [alias, members] of byAlias) {
      if (!alias.includes('*') && isGroup(alias, members)) this.addGroup(alias, alias)
    }
    for (const { name, target } of usable) this.addGroup(name, target)
    for (const [alias, { note }] of fallbacks) {
      if (alias !== '*' && !this.targets.has(alias)) note('is no model that was imported; its fallbacks are left out')
    }
    if (this.hasGroups && this.settings.retries !== undefined) {
      this.root.note('applies to models of their own; in groups the next target is tried', 'router_settings', 'num_retries')
    }
    return this.documents
  }

  /** Names to try after this one; those of every name where it has none of its own. */
  private fallbacksOf(alias: string): string[] {
    const { fallbacks, defaultFallbacks } = this.settings
    return ((fallbacks.get(alias) ?? fallbacks.get('*'))?.names ?? defaultFallbacks).filter(name => name !== alias)
  }

  private addPattern(alias: string, [first, ...others]: readonly Deployment[]): void {
    if (!first) return
    this.add(alias, first, true)
    for (const { section } of others) section.note('a pattern is served by one server: only the first of this name is taken')
    if (this.fallbacksOf(alias).length > 0) first.section.note('a pattern has no fallbacks; left out')
    if (first.tags.length > 0) this.tagsLeftOut(first, 'choose among the targets of a group')
  }

  private addSingle(alias: string, [only]: readonly Deployment[]): void {
    if (!only) return
    this.add(alias, only, true)
    this.targets.set(alias, [{ model: alias }])
    if (only.tags.length > 0) this.tagsLeftOut(only, 'choose among the targets of a group')
  }

  private tagsLeftOut({ section }: Deployment, why: string): void {
    section.note(`${why}; left out`, 'litellm_params', 'tags')
  }

  private addMember(deployment: Deployment, weight: number | undefined): Target {
    const { alias, order, tags } = deployment
    if (tags.length > 0 && !this.settings.obeysTags) this.tagsLeftOut(deployment, 'have no effect without enable_tag_filtering')
    const model = numbered(alias, this.taken)
    this.taken.add(model)
    this.add(model, deployment, false)
    return {
      model,
      ...(weight === undefined ? {} : { weight }),
      ...(order === 1 ? {} : { priority: 1 - order }),
      ...(tags.length > 0 && this.settings.obeysTags ? { tags } : {}),
    }
  }

  private add(name: string, { server, modelName, members, hasRetries }: Deployment, isAlone: boolean): void {
    const { timeout, streamTimeout, retries, cooldown } = this.settings
    this.documents.push({
      display_name: name,
      provider: server.label,
      model_name: modelName,
      provider_key: this.providerKeys.nameOf(server),
      ...(timeout === undefined ? {} : { timeout }),
      ...(streamTimeout === undefined ? {} : { stream_timeout: streamTimeout }),
      ...(retries === undefined || hasRetries || !isAlone ? {} : { retries }),
      ...(cooldown === undefined ? {} : { cooldown }),
      ...members,
    })
  }

  /** in: `source` is the name whose fallbacks apply: that of the group, or what an alias stands for */
  private addGroup(alias: string, source: string): void {
    this.hasGroups = true
    const own = this.targets.get(alias) ?? []
    const targets = [...own]
    // Untagged ones would drop out beside tagged ones: what is tried last takes whatever the group's own take.
    const ownTags = [...new Set(own.flatMap(({ tags = [] }) => tags))]
    const tags = ownTags.length > 0 ? { tags: [...new Set([...ownTags, 'default'])] } : {}
    let priority = Math.min(0, ...own.map(target => target.priority ?? 0))
    for (const name of this.fallbacksOf(source)) {
      const others = this.targets.get(name)
      if (!others) {
        const text = `fallback "${printable(name)}" is no model that was imported; left out`
        const { note } = this.settings.fallbacks.get(source) ?? {}
        if (note) note(text)
        else this.root.note(text)
        continue
      }
      priority -= 1
      const isNew = ({ model }: Target) => !targets.some(target => target.model === model)
      targets.push(
        ...others
          .filter(isNew)
          .map(({ model, weight }) => ({ model, ...(weight === undefined ? {} : { weight }), priority, ...tags })),
      )
    }
    this.documents.push({
      display_name: alias,
      routing: {
        strategy: own.length > 1 ? this.settings.strategy : 'failover',
        targets,
        // LiteLLM goes on to the next after a 429, too.
        retry_on_429: true,
      },
    })
  }
}

/**
 * Weights of the deployments of one name, whole numbers of which those that are not given count as 1.
 * source: LiteLLM, "Routing", simple-shuffle: weight, else rpm, else tpm
 */
function weightsOf(members: readonly Deployment[]): (number | undefined)[] {
  const measure = (['weight', 'rpm', 'tpm'] as const).find(each => members.some(({ shares }) => shares[each] !== undefined))
  const weights = members.map(({ shares }) => (measure === undefined ? undefined : shares[measure]))
  const scale = weights.every(weight => weight === undefined || Number.isInteger(weight)) ? 1 : 100
  return weights.map(weight => (weight === undefined ? undefined : Math.round(weight * scale)))
}

function unused(wanted: string, taken: ReadonlySet<string>): string {
  if (!taken.has(wanted)) return wanted
  return numbered(wanted, taken, 2)
}

function numbered(name: string, taken: ReadonlySet<string>, from = 1): string {
  let number = from
  while (taken.has(`${name}-${number}`)) number += 1
  return `${name}-${number}`
}

function masterKey(master: string | Reference | undefined): Record<string, unknown>[] {
  if (master === undefined) return []
  const credential =
    master instanceof Reference
      ? { key_env: master.name }
      : { key_hash: new Bun.CryptoHasher('sha256').update(master).digest('hex') }
  return [{ display_name: 'litellm-master-key', ...credential, allowed_models: ['*'] }]
}

function readRest(root: Section): void {
  const environment = root.section('environment_variables')
  for (const name of environment?.keys() ?? [])
    environment?.note("set it in the gateway's environment where a secret refers to it", name)
  root.rest({
    include: 'other files are not read: import each of them by itself',
    callback_settings: 'write observability exporters instead; left out',
    mcp_servers: 'is not imported',
    guardrails: 'is not imported',
    credential_list: 'is not imported: set the secrets of the provider keys',
  })
}

const IN_DATABASE = 'keys, teams and budgets in that database are not in the file: make keys with aisix keys create'
const REDIS = 'nothing here needs Redis; left out'
const ROUTER_REASONS: Readonly<Record<string, string>> = {
  allowed_fails: 'the first failure cools a model down here; left out',
  allowed_fails_policy: 'see `cooldown.trigger_statuses` of models; left out',
  retry_policy: 'see `retries` and `routing.fallback_on_statuses`; left out',
  model_group_retry_policy: 'see `retries` and `routing.fallback_on_statuses`; left out',
  retry_after: 'waits between retries are chosen by the gateway; left out',
  context_window_fallbacks: 'requests are not tried elsewhere for their length; left out',
  content_policy_fallbacks: 'requests are not tried elsewhere for their content; left out',
  routing_strategy_args: 'has no counterpart; left out',
  enable_pre_call_checks: 'requests are not counted before they are sent; left out',
  redis_host: REDIS,
  redis_port: REDIS,
  redis_password: REDIS,
  redis_url: REDIS,
}
const CALLBACKS = 'metrics and usage records are always kept; traces go out by an observability exporter; left out'
const LITELLM_REASONS: Readonly<Record<string, string>> = {
  drop_params: 'parameters that a server does not know are not dropped here; left out',
  cache: 'answers are not cached by what is imported; left out',
  cache_params: 'answers are not cached by what is imported; left out',
  callbacks: CALLBACKS,
  success_callback: CALLBACKS,
  failure_callback: CALLBACKS,
  service_callback: CALLBACKS,
  allowed_fails: 'the first failure cools a model down here; left out',
  context_window_fallbacks: 'requests are not tried elsewhere for their length; left out',
  content_policy_fallbacks: 'requests are not tried elsewhere for their content; left out',
  set_verbose: 'set observability.log_level in config.yaml; left out',
  json_logs: 'set observability.log_format in config.yaml; left out',
  turn_off_message_logging: 'prompts are never logged here; left out',
  telemetry: 'nothing is ever sent home here; left out',
  default_team_settings: 'teams are the team_id of keys here; left out',
  ssl_verify: 'set upstream.tls.verify in config.yaml; left out',
  forward_client_headers_to_llm_api: 'set request.forward_client_headers of the provider keys; left out',
}
const GENERAL_REASONS: Readonly<Record<string, string>> = {
  database_url: IN_DATABASE,
  store_model_in_db: 'models in that database are not in the file; left out',
  database_connection_pool_limit: 'no database is needed here; left out',
  alerting: 'alert by the metrics, docs/prometheus/alerts.yaml; left out',
  alerting_threshold: 'alert by the metrics, docs/prometheus/alerts.yaml; left out',
  background_health_checks: 'set background_model_check of the models; left out',
  health_check_interval: 'set background_model_check of the models; left out',
  max_parallel_requests: 'set rate_limit.concurrency of keys; left out',
  global_max_parallel_requests: 'write a rate-limit policy; left out',
  max_request_size_mb: 'set proxy.request_body_limit_bytes in config.yaml; left out',
  pass_through_endpoints: 'write passthrough routes; left out',
  custom_auth: 'code is not imported; left out',
  proxy_batch_write_at: 'no database is needed here; left out',
}

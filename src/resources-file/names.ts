/** How entries of a resources file are called, and the ids that follow. Source: control-resources-file §1 and §2. */
import { uuidV5 } from '../lib/uuid.ts'
import { type Kind, kinds, REGISTRY } from '../resources/index.ts'

/** The version of the format, a string. */
export const FORMAT_VERSION = '1'

const NAMESPACE = '63e50ab2-677a-54d3-8d1e-c0cb29ceae94'

/** The id of an entry: the same at each load and on every machine, until it is renamed. */
export function idOf(kind: Kind, identity: string): string {
  return uuidV5(NAMESPACE, `${kind}/${identity}`)
}

/** The member that tells entries of a kind apart in a file. The hash of a key is no name. */
export function identityMember(kind: Kind): string {
  const { unique } = REGISTRY[kind]
  return unique === 'key_hash' ? 'display_name' : unique
}

/** The order of the contract's table; kinds that are ours come last. */
const ORDER: readonly string[] = [
  'provider_keys',
  'models',
  'api_keys',
  'guardrails',
  'mcp_servers',
  'a2a_agents',
  'passthrough_routes',
  'cache_policies',
  'observability_exporters',
  'oidc_providers',
  'rate_limit_policies',
  'claim_mappings',
  'mcp_auth_settings',
]
const rank = (kind: string) => (ORDER.includes(kind) ? ORDER.indexOf(kind) : ORDER.length)

/** The collections of a file, in the order in which they are written. */
export const COLLECTIONS: readonly Kind[] = kinds.toSorted((a, b) => rank(a) - rank(b))

/** Collections of the contract that this version does not have. */
export const LATER_COLLECTIONS: readonly string[] = ORDER.filter(name => !Object.hasOwn(REGISTRY, name))

/** Loads configurations out of text, for tests. */
import { ConfigError, type LoadedConfig, loadConfig } from '../../src/config.ts'

/** A configuration that lacks nothing; tests append to it. */
export const MINIMAL = 'admin: {enabled: false}\nproxy:\n  addr: "127.0.0.1:0"\n'

type Env = Record<string, string>

export function load(text: string | Uint8Array, env: Env = {}, path = 'config.yaml'): LoadedConfig {
  const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text
  return loadConfig({ path, env, readFile: () => bytes })
}

/** The problems of a configuration that must not load. */
export function problems(text: string | Uint8Array, env: Env = {}, path = 'config.yaml'): readonly string[] {
  try {
    load(text, env, path)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error('expected the configuration to be refused, and it was loaded')
}

/** A value as YAML or JSON, nested under its dotted path and beside what every configuration needs. */
export function withKey(path: string, value: unknown): string {
  const root: Record<string, unknown> = { admin: { enabled: false }, proxy: { addr: '127.0.0.1:0' } }
  const segments = path.split('.')
  let section = root
  for (const segment of segments.slice(0, -1)) {
    const next = { ...Object(section[segment]) }
    section[segment] = next
    section = next
  }
  section[segments.at(-1) ?? ''] = value
  return JSON.stringify(root)
}

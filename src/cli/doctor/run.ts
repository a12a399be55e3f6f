/** All checks, in the order of what rests on what. */
import { allDangling } from '../../admin/references.ts'
import { type Config, ConfigError, type LoadedConfig, loadConfig } from '../../config.ts'
import { createTable } from '../../store/table.ts'
import type { Io } from '../command.ts'
import { checkCertificates } from './certificates.ts'
import { checkDatabases, readStore } from './database.ts'
import { checkClock, checkModes, checkRoom } from './files.ts'
import { type Finding, Findings } from './finding.ts'
import { checkPorts } from './ports.ts'
import { checkResourcesFile } from './resources-file.ts'
import { checkServers } from './servers.ts'

export async function examine(configPath: string, io: Io, options: { mayProbe: boolean; hostMs?: number }): Promise<Finding[]> {
  const { loaded, findings } = checkConfig(configPath, io)
  const nowMs = io.now().getTime()
  if (!loaded) return [...findings, ...checkClock(nowMs, [configPath])]
  const { config, tls } = loaded
  const { store, usage, budgets } = config
  // Before anything is asked over the network: reading a database holds up what waits for an answer in time.
  const local = [
    ...checkClock(nowMs, [configPath, ...resourcesOf(config), usage.path, budgets.path]),
    ...checkModes(configPath, config),
    ...checkRoom(config),
    ...checkCertificates(loaded, nowMs),
    ...checkDatabases(config),
  ]
  const file = config.resources_file === undefined ? undefined : checkResourcesFile(config.resources_file, io.env)
  const rows = file ? file.rows : readStore(store.path)
  const table = createTable({ now: () => nowMs })
  table.load(0, rows ?? [])
  const { ca, cert, key } = tls.upstream
  const [ports, servers] = await Promise.all([
    checkPorts(config, io.fetch),
    checkServers({
      snapshot: table.snapshot,
      tls: { ca: ca === undefined ? [] : [ca], cert, key, verify: config.upstream.tls.verify },
      proxy: config.upstream.proxy,
      fetch: io.fetch,
      nowMs,
      ...options,
    }),
  ])
  return [...findings, ...local, ...(file?.findings ?? []), ...ports, ...(rows ? checkNames(table) : []), ...servers]
}

/** Where the resources lie, by the times of whose files the clock is judged. */
function resourcesOf({ resources_file, store }: Config): string[] {
  return resources_file === undefined ? [store.path, `${store.path}-wal`] : [resources_file]
}

function checkConfig(path: string, io: Io): { loaded: LoadedConfig | undefined; findings: Finding[] } {
  const findings = new Findings('config')
  try {
    const loaded = loadConfig({ path, env: io.env })
    for (const warning of loaded.warnings) findings.add('warning', warning)
    if (loaded.warnings.length === 0) findings.add('ok', `${path} can be used`)
    return { loaded, findings: findings.all }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems) findings.add('error', problem, 'the gateway does not start with it: correct it')
    findings.add('note', 'nothing else was looked at but the clock: what to look at stands in the configuration')
    return { loaded: undefined, findings: findings.all }
  }
}

/** Resources that are not served, that share a name, or that name what is not there. */
function checkNames(table: ReturnType<typeof createTable>): Finding[] {
  const findings = new Findings('resource')
  for (const { resource_kind, resource_id, last_error } of table.rejected()) {
    findings.add(
      'error',
      `is not served: ${last_error}`,
      'write it anew over the admin API, or delete it',
      `${resource_kind} ${resource_id}`,
    )
  }
  for (const { kind, id, name, field, missing } of allDangling(table.snapshot)) {
    findings.add(
      'warning',
      `names what is not there: ${field} "${missing}"`,
      'correct it, or create what it names',
      `${kind} ${name ?? id}`,
    )
  }
  if (findings.all.length === 0) {
    const { providerKeys, entries } = table.snapshot
    findings.add(
      'ok',
      `${providerKeys.size} provider keys, ${entries.models.size} models and ${entries.api_keys.size} keys, none of which names what is not there`,
    )
  }
  return findings.all
}

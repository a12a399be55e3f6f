/** Files and folders: who may read what is secret, whether there is room, and what their times say of the clock. */
import { readFileSync, statfsSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname } from 'node:path'
import type { Config } from '../../config.ts'
import { errorCode } from '../../lib/transport-cause.ts'
import { type Finding, Findings } from './finding.ts'

/** Files of the gateway that are there, by what they are. */
type Known = { what: string; path: string }

const MIB = 1024 * 1024
const ROOM_WARNING = 1024 * MIB
const ROOM_ERROR = 100 * MIB

/** Names that SQLite gives to what lies beside a database. */
const BESIDE = ['', '-wal', '-shm']

export function checkModes(configPath: string, config: Config): Finding[] {
  const { proxy, admin, upstream } = config
  const secrets: Known[] = [
    ...(holdsKey(configPath, config) ? [{ what: 'the configuration, which holds admin keys', path: configPath }] : []),
    ...(['store', 'usage', 'budgets'] as const).flatMap(key =>
      BESIDE.map(end => ({ what: `${key}.path`, path: config[key].path + end })),
    ),
    ...[proxy.tls?.key_file, admin.tls?.key_file, upstream.tls.client_key_file].flatMap(path =>
      path === undefined ? [] : [{ what: 'a private key', path }],
    ),
  ]
  const findings = new Findings('file mode')
  let looked = 0
  for (const { what, path } of secrets) {
    const mode = modeOf(path)
    if (mode === undefined) continue
    looked += 1
    const shown = `0${mode.toString(8)}`
    const advice = `chmod 600 ${path}`
    if ((mode & 0o022) !== 0) findings.add('error', `${what} can be written by others (${shown})`, advice, path)
    else if ((mode & 0o004) !== 0) findings.add('warning', `${what} can be read by every user (${shown})`, advice, path)
    else if ((mode & 0o040) !== 0) findings.add('note', `${what} can be read by its group (${shown})`, advice, path)
  }
  if (findings.all.length === 0) findings.add('ok', `${looked} files with secrets are readable by their owner alone`)
  return findings.all
}

/** A configuration whose keys all come from variables is no secret. */
function holdsKey(path: string, { admin }: Config): boolean {
  try {
    const text = readFileSync(path, 'utf8')
    return admin.admin_keys.some(key => text.includes(key))
  } catch {
    return false
  }
}

function modeOf(path: string): number | undefined {
  try {
    return (statSync(path, { throwIfNoEntry: false })?.mode ?? Number.NaN) & 0o777 || undefined
  } catch {
    return undefined
  }
}

export function checkRoom(config: Config): Finding[] {
  const places: [string, string][] = [
    ...(config.resources_file === undefined ? [['store.path', dirname(config.store.path)] satisfies [string, string]] : []),
    ['budgets.path', dirname(config.budgets.path)],
    ...(config.usage.enabled ? [['usage.path', dirname(config.usage.path)] satisfies [string, string]] : []),
    ['proxy.upload_dir', config.proxy.upload_dir ?? tmpdir()],
  ]
  const findings = new Findings('disk space')
  for (const [folder, entries] of Map.groupBy(places, ([, folder]) => folder)) {
    const keys = entries.map(([key]) => key).join(', ')
    const room = roomOf(folder)
    if (typeof room === 'string') findings.add('error', `the folder of ${keys} ${room}`, `create it, or change ${keys}`, folder)
    else judgeRoom(findings, folder, keys, room)
  }
  return findings.all
}

/** in: bytes and files that an ordinary user may still take; a file system that counts no files has none to count */
function judgeRoom(
  findings: Findings,
  folder: string,
  keys: string,
  { bytes, files }: { bytes: number; files: number | undefined },
): void {
  const shown = `${Math.floor(bytes / MIB).toLocaleString('en')} MiB are free for ${keys}`
  if (bytes < ROOM_ERROR) findings.add('error', shown, 'free space now: writes are refused when none is left', folder)
  else if (bytes < ROOM_WARNING) findings.add('warning', shown, 'free space, or lower usage.max_bytes', folder)
  else if (files !== undefined && files < 1000)
    findings.add('warning', `only ${files} more files can be created for ${keys}`, 'remove files from that file system', folder)
  else findings.add('ok', shown, undefined, folder)
}

function roomOf(folder: string): { bytes: number; files: number | undefined } | string {
  try {
    if (!statSync(folder).isDirectory()) return 'is a file'
    const { bavail, bsize, files, ffree } = statfsSync(folder)
    return { bytes: bavail * bsize, files: files > 0 ? ffree : undefined }
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? 'does not exist' : `cannot be looked at (${errorCode(error)})`
  }
}

/** The year in which this was written: no clock that is right tells an earlier one. */
const YEAR_MIN = 2026
const YEAR_MAX = 2100
/** Clocks of a file server and its clients may differ by this. */
const AHEAD_MS = 60_000

/** in: files whose times no clock that is right can lie before */
export function checkClock(nowMs: number, paths: readonly string[]): Finding[] {
  const findings = new Findings('clock')
  const now = new Date(nowMs)
  const year = now.getUTCFullYear()
  const advice = 'set the clock: keys expire, windows of limits and certificates are judged by it'
  const newest = paths
    .flatMap(path => {
      try {
        const { mtimeMs } = statSync(path)
        return [{ path, mtimeMs }]
      } catch {
        return []
      }
    })
    .sort((a, b) => b.mtimeMs - a.mtimeMs)[0]
  if (year < YEAR_MIN || year > YEAR_MAX) findings.add('error', `says ${now.toISOString()}`, advice)
  else if (newest && newest.mtimeMs > nowMs + AHEAD_MS) {
    findings.add(
      'warning',
      `says ${now.toISOString()}, and ${newest.path} was written at ${new Date(newest.mtimeMs).toISOString()}`,
      advice,
    )
  } else findings.add('ok', `says ${now.toISOString()}, later than every file of the gateway`)
  return findings.all
}

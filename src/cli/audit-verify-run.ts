/** `aisix audit verify`: whether the audit log of a store is as it was written. */
import { existsSync } from 'node:fs'
import { ConfigError } from '../config.ts'
import { type AuditVerdict, verifyAudit } from '../store/audit.ts'
import { readOnly } from '../store/read-only.ts'
import { explain } from '../store/sqlite-file.ts'
import type { Output } from './command.ts'
import { databasesOf, type StoreChoice } from './store-choice.ts'

/** An entry as an earlier verification printed it. */
export type KnownEntry = { seq: number; hash: string }

/** in: `SEQ:HASH`; undefined for anything else */
export function readKnownEntry(text: string): KnownEntry | undefined {
  const [, seq, hash] = /^([1-9]\d{0,14}):([0-9a-f]{64})$/.exec(text) ?? []
  return seq === undefined || hash === undefined ? undefined : { seq: Number(seq), hash }
}

/** exit: 1 where the log is not as it was written, or cannot be looked at */
export function runAuditVerify(
  store: StoreChoice,
  known: KnownEntry | undefined,
  env: Readonly<Record<string, string | undefined>>,
): Output {
  try {
    return verify(databasesOf(store, env).store, known)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { stdout: '', stderr: `config load failed: ${error.message}\n`, exit: 1 }
  }
}

function verify(path: string, known: KnownEntry | undefined): Output {
  const fail = (problem: string) => ({ stdout: '', stderr: `audit verify failed: ${problem}\n`, exit: 1 as const })
  if (!existsSync(path)) return fail(`there is no store file ${path}`)
  let verdict: AuditVerdict | undefined
  try {
    verdict = readOnly(path, db => {
      const table = db.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'audit'").get()
      return table === null ? undefined : verifyAudit(db, known)
    })
  } catch (error) {
    return fail(explain(error, path))
  }
  if (!verdict) return fail(`${path} has no audit log: it is no store of this version, or one that was not started with it yet`)
  if (!verdict.ok) {
    return { stdout: '', stderr: `BROKEN: ${path}: ${verdict.problem}\n`, exit: 1 }
  }
  if (verdict.hash === undefined) return { stdout: `OK: ${path}: no entries\n`, stderr: '', exit: 0 }
  const { entries, first, last, from, to, hash } = verdict
  const lines = [`OK: ${path}: ${entries} entries, ${first} to ${last}, ${from} to ${to}`, `last entry ${last}:${hash}`]
  return { stdout: `${lines.join('\n')}\n`, stderr: '', exit: 0 }
}

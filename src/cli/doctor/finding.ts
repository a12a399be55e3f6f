/** What the doctor finds, and how it is told. */
import type { Io } from '../command.ts'
import { clean, paint } from '../table.ts'

/** `note`: worth knowing, nothing to do. `warning`: works, and should not be left so. `error`: does not work. */
export const SEVERITIES = ['ok', 'note', 'warning', 'error'] as const
export type Severity = (typeof SEVERITIES)[number]

export type Finding = {
  /** What was looked at: `config`, `port`, `server` … */
  check: string
  /** Which one of them: a file, an address, a name. */
  subject?: string
  severity: Severity
  /** What is so. It holds no secret. */
  message: string
  /** What to do; absent where nothing is to be done. */
  advice?: string
}

/** What is said of a subject: how bad it is, what is so, what to do. */
export type Verdict = readonly [severity: Severity, message: string, advice?: string]

/** Findings of one check, about one subject unless another is named. */
export class Findings {
  readonly all: Finding[] = []

  constructor(
    private readonly check: string,
    private readonly subject?: string,
  ) {}

  add(severity: Severity, message: string, advice?: string, subject = this.subject): void {
    this.all.push({
      check: this.check,
      ...(subject === undefined ? {} : { subject }),
      severity,
      message,
      ...(advice === undefined ? {} : { advice }),
    })
  }
}

export function worst(findings: readonly Finding[]): Severity {
  const rank = Math.max(0, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)))
  return SEVERITIES[rank] ?? 'ok'
}

/** 0: nothing to do. 1: warnings. 2: errors. */
export function exitOf(findings: readonly Finding[]): 0 | 1 | 2 {
  const severity = worst(findings)
  return severity === 'error' ? 2 : severity === 'warning' ? 1 : 0
}

const COLOURS = { ok: 'green', note: 'dim', warning: 'yellow', error: 'red' } as const

/** One line a finding, what to do under it, and how many there are of each at the end. */
export function findingsText(findings: readonly Finding[], io: Pick<Io, 'hasColour'>): string {
  const lines = findings.map(({ check, subject, severity, message, advice }) => {
    const mark = paint(severity.padEnd(7), COLOURS[severity], io)
    const what = subject === undefined ? check : `${check} ${clean(subject)}`
    return `${mark}  ${what}: ${clean(message)}\n${advice === undefined ? '' : `         → ${clean(advice)}\n`}`
  })
  const counts = SEVERITIES.map(severity => {
    const count = findings.filter(finding => finding.severity === severity).length
    return `${count} ${severity}${severity === 'ok' || count === 1 ? '' : 's'}`
  })
  return `${lines.join('')}${counts.join(', ')}\n`
}

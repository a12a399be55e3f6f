/** Dates of the certificates in files that the configuration names; that they are readable and match their keys, loading tells. */
import type { LoadedConfig } from '../../config.ts'
import { parseCertificates } from '../../lib/pem.ts'
import { type Finding, Findings } from './finding.ts'

export const EXPIRY_WARNING_DAYS = 30
const DAY_MS = 86_400_000

export function checkCertificates({ config, tls }: Pick<LoadedConfig, 'config' | 'tls'>, nowMs: number): Finding[] {
  const { proxy, admin, upstream } = config
  const files: [string | undefined, string | undefined][] = [
    [proxy.tls?.cert_file, tls.proxy?.cert],
    [admin.tls?.cert_file, tls.admin?.cert],
    [upstream.tls.client_cert_file, tls.upstream.cert],
    [upstream.tls.ca_file, tls.upstream.ca],
  ]
  const findings = new Findings('certificate')
  for (const [file, pem] of files) {
    if (file === undefined || pem === undefined) continue
    const read = parseCertificates(pem)
    // What cannot be read, loading has refused.
    if (!('certificates' in read)) continue
    for (const { subject, validFrom, validTo } of read.certificates) {
      const name = subject.replaceAll('\n', ', ')
      const { severity, message } = judgeDates(Date.parse(validFrom), Date.parse(validTo), nowMs)
      findings.add(
        severity,
        `${name} ${message}`,
        severity === 'ok' ? undefined : 'renew it, then restart the gateway: certificates are read at the start',
        file,
      )
    }
  }
  return findings.all
}

/** in: epoch milliseconds */
export function judgeDates(
  fromMs: number,
  toMs: number,
  nowMs: number,
): { severity: 'ok' | 'warning' | 'error'; message: string } {
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10)
  if (nowMs < fromMs) return { severity: 'error', message: `is not valid before ${day(fromMs)}` }
  if (nowMs > toMs) return { severity: 'error', message: `expired on ${day(toMs)}` }
  const days = Math.floor((toMs - nowMs) / DAY_MS)
  if (days < EXPIRY_WARNING_DAYS) return { severity: 'warning', message: `expires on ${day(toMs)}, in ${days} days` }
  return { severity: 'ok', message: `is valid until ${day(toMs)}` }
}

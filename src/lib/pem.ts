/** Certificates in PEM text. Source: RFC 7468 §2 and §5. */
import { X509Certificate } from 'node:crypto'

/** `number` counts the certificates of the text from 1. */
export type PemProblem = { problem: 'none' } | { problem: 'damaged'; number: number } | { problem: 'other' }

const BEGIN = '-----BEGIN CERTIFICATE-----'
const END = '-----END CERTIFICATE-----'

/**
 * Every certificate of a text: one that cannot be read would be missed only when a connection fails.
 * returns: `none` where there is no block of a certificate, `damaged` for the first that cannot be read, and `other` where
 * `alone` is asked for and something beside certificates and white space is there, such as a private key
 */
export function parseCertificates(pem: string, { alone = false } = {}): { certificates: X509Certificate[] } | PemProblem {
  const certificates: X509Certificate[] = []
  let beside = ''
  let at = 0
  for (;;) {
    const begin = pem.indexOf(BEGIN, at)
    beside += pem.slice(at, begin < 0 ? undefined : begin)
    if (begin < 0) break
    const end = pem.indexOf(END, begin)
    const content = end < 0 ? undefined : pem.slice(begin + BEGIN.length, end)
    const certificate = content === undefined ? undefined : readCertificate(content)
    if (!certificate) return { problem: 'damaged', number: certificates.length + 1 }
    certificates.push(certificate)
    at = end + END.length
  }
  if (certificates.length === 0) return { problem: 'none' }
  return alone && beside.trim() !== '' ? { problem: 'other' } : { certificates }
}

/** in: what stands between the lines that mark a block; anything but base64 is a fault, not a comment */
function readCertificate(content: string): X509Certificate | undefined {
  if (!/^[A-Za-z0-9+/=\s]*$/.test(content)) return undefined
  try {
    return new X509Certificate(BEGIN + content + END)
  } catch {
    return undefined
  }
}
